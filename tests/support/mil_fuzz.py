"""Runs altered packages, each in a process of its own within limits of memory and time. Run as a program:

    python mil_fuzz.py FOLDER FIRST COUNT PACKAGE...

It prints a JSON object: how many were refused, how many ran, and what went wrong. torch and coremltools are not
imported, so that the limits count for the interpreter alone.
"""

from __future__ import annotations

import collections
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mil_mutations import Sites, damage_file, mutate_proto

from satchel import coreml
from satchel.runtime.coreml.checks import check_package
from satchel.runtime.coreml.inspection import inspect_program
from satchel.runtime.errors import SatchelError
from satchel.runtime.mil import mil_pb2 as pb

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
MEMORY = 1 << 30  # bytes beyond what the process has at the start
SECONDS = 2.0  # of the processor, for loading and running
PATIENCE = 60  # seconds of the clock: only who waits for something takes so long
LARGEST_INPUT = 1 << 18  # elements: larger inputs are refused for their shape
NUMBERS = (1, 1, 1, 0, 2, 7, -1, 1000, 40_000, 2**24, 2**31 - 1, -(2**31))  # for inputs that are whole numbers
REFUSED, RAN, WRONG = 0, 1, 2


def main(folder: Path, first: int, count: int, packages: list[Path]) -> dict[str, Any]:
    """Alters packages in turn, with seeds first, first + 1, ..."""
    start = time.monotonic()
    found: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    models = [pb.Model.FromString((p / MODEL).read_bytes()) for p in packages]
    sites = [Sites(model) for model in models]
    for package in packages:
        use(package)
        inspect(package)  # so that all that is imported late is there, and counts for no mutation
    for seed in range(first, first + count):
        which = seed % len(packages)
        outcome, told = in_a_child(folder / f"{seed}.mlpackage", seed, packages[which], models[which], sites[which])
        found[outcome] += 1
        if outcome not in ("refused", "ran"):
            wrong.append(f"seed {seed}, {packages[which].name}: {outcome}: {told}")
    return {"counts": found, "wrong": wrong, "seconds": round(time.monotonic() - start, 1)}


def in_a_child(path: Path, seed: int, package: Path, model: Any, sites: Sites) -> tuple[str, str]:
    """(what became of it, what the child said)."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receive)
        code = 99
        try:
            code = attempt(path, seed, package, model, sites, send)
        finally:
            os._exit(code)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    shutil.rmtree(path, ignore_errors=True)
    if os.WIFSIGNALED(status):
        names = {signal.SIGPROF: f"more than {SECONDS} s", signal.SIGALRM: "waits"}
        return names.get(signal.Signals(os.WTERMSIG(status)), signal.Signals(os.WTERMSIG(status)).name), told
    return {REFUSED: "refused", RAN: "ran"}.get(os.WEXITSTATUS(status), "wrong"), told


def attempt(path: Path, seed: int, package: Path, model: Any, sites: Sites, pipe: int) -> int:
    """Alters a package and uses it, within limits; REFUSED, RAN or WRONG."""
    rng = random.Random(seed)
    os.write(pipe, f"{alter(path, package, model, sites, rng)}\n".encode(errors="replace")[:4000])
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.alarm(PATIENCE)
    precision = "fp16" if seed % 4 == 0 else "fp32"
    codes = [outcome(lambda: use(path, precision, rng.choice(NUMBERS)), pipe), outcome(lambda: inspect(path), pipe)]
    return WRONG if WRONG in codes else codes[0]


def outcome(act: Callable[[], object], pipe: int) -> int:
    """REFUSED, RAN or WRONG; a process that takes too long is ended by the system."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        act()
    except SatchelError as error:
        if not out_of_memory(error):
            return REFUSED
        os.write(pipe, f"out of memory: {error}"[-3000:].encode(errors="replace"))
        return WRONG
    except BaseException:
        os.write(pipe, traceback.format_exc()[-3000:].encode(errors="replace"))
        return WRONG
    return RAN


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error comes of memory that was asked for and not there."""
    return error is not None and (
        isinstance(error, MemoryError) or out_of_memory(error.__cause__) or out_of_memory(error.__context__)
    )


def alter(path: Path, package: Path, model: Any, sites: Sites, rng: random.Random) -> str:
    """Makes an altered copy of a package; the model is altered too."""
    (path / WEIGHTS).parent.mkdir(parents=True)
    shutil.copy(package / "Manifest.json", path)
    files = [f for f in (MODEL, MODEL, WEIGHTS, "Manifest.json") if (package / f).exists()]
    if WEIGHTS in files:
        os.link(package / WEIGHTS, path / WEIGHTS)
    if rng.random() < 0.85:
        done = [mutate_proto(sites, rng) for _ in range(rng.choice((1, 1, 1, 2, 3)))]
        (path / MODEL).write_bytes(model.SerializeToString())
        return "; ".join(done)
    os.link(package / MODEL, path / MODEL)
    return damage_file(path / rng.choice(files), rng)


def use(path: Path, precision: str = "fp32", number: int = 1) -> None:
    """Loads a package and calls its functions as an app would."""
    model = coreml.load(path)
    for function in model.functions[:3]:
        signature = model.signature(function)
        data = {name: example(feature, number) for name, feature in signature.inputs.items() if not feature.optional}
        state = model.make_state(function) if signature.states else None
        model.predict(data, state, function=function, precision=precision)


def inspect(path: Path) -> None:
    """Describes and judges a package, which does not run it."""
    inspect_program(path)
    check_package(path)


def example(feature: coreml.Feature, number: int) -> Any:
    """A value for an input, `number` everywhere."""
    if feature.kind in ("string", "int64", "double"):
        return {"string": "x", "int64": number, "double": float(number)}[feature.kind]
    shape = [d if isinstance(d, int) else 2 for d in feature.shape]
    if any(d < 0 for d in shape) or np.prod(shape, dtype=object) > LARGEST_INPUT:
        shape = [1] * len(shape)
    shape = shape[:64]  # more axes numpy does not have, and the model is right to refuse these
    dtype = "uint8" if feature.kind == "image" else feature.dtype
    if feature.dtype == "int32":
        return np.full(shape, number, "int32")
    return np.full(shape, 1, dtype if dtype in ("uint8", "float16", "float32", "float64") else "float32")


if __name__ == "__main__":
    folder, first, count, *packages = sys.argv[1:]
    print(json.dumps(main(Path(folder), int(first), int(count), [Path(p) for p in packages])))
