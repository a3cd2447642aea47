"""Speed and memory of the interpreter of Core ML packages.

usage: python benchmarks/coreml.py BUNDLE [--networks FOLDER] [--threads N]

BUNDLE is a Core ML bundle of SmolLM2. Prints one JSON object:

    decode   name -> ms a token (best and median), CPU ms, seconds until the first token is there, peak memory
    vision   network -> ms a call for Satchel and for onnxruntime, in turns, and the median of their ratios
    memory   GB/s that this machine reads with one and with two threads, and what a token of SmolLM2 has to read

The networks are written by coreml_networks.py where FOLDER does not have them yet.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measure import measure

HERE = Path(__file__)
NETWORKS = ("convnet", "vit")
TOKENS, ROUNDS, BANDWIDTH_ROUNDS = 48, 15, 20
DECODES = {  # name -> precision, kernels, megabytes for expanded weights
    "fp32": ("fp32", "auto", None),
    "fp16": ("fp16", "auto", None),
    "fp32, numpy alone": ("fp32", "numpy", None),
    "fp32, 256 MB of weights": ("fp32", "auto", 256),
    "fp32, 64 MB of weights": ("fp32", "auto", 64),
    "fp32, none kept": ("fp32", "auto", 0),
}


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """(milliseconds, CPU milliseconds) of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu)


def decode(package: Path, precision: str, kernels: str, megabytes: int | None, threads: int) -> dict[str, float]:
    """Tokens through the decode function, one after the other, in this process."""
    start = time.perf_counter()
    from satchel.runtime import mil

    limit = None if megabytes is None else megabytes << 20
    program = mil.load(package, max_memory=limit, kernels=kernels, threads=threads)
    state, count = program.make_state(), TOKENS if limit is None else 5

    def step(position: int) -> None:
        inputs = {"inputIds": np.array([[100 + position]], np.int32), "position": np.array([position], np.int32)}
        program.run(inputs, state=state, precision=precision)

    step(0)
    first = time.perf_counter() - start
    times = [timed(lambda i=i: step(i)) for i in range(1, count)]  # type: ignore[misc]
    return {
        "best_ms": round(min(t for t, _ in times), 1), "median_ms": round(statistics.median(t for t, _ in times), 1),
        "cpu_ms": round(min(c for _, c in times), 1), "first_token_seconds": round(first, 2),
    }  # fmt: skip


def vision(folder: Path, name: str, threads: int) -> dict[str, float]:
    """A network by Satchel and by onnxruntime, in turns."""
    import onnxruntime

    from satchel.runtime import mil

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"])
    programs = {
        "fp32": (mil.load(folder / f"{name}.mlpackage", threads=threads), "fp32"),
        "fp32, numpy alone": (mil.load(folder / f"{name}.mlpackage", kernels="numpy"), "fp32"),
        "fp16": (mil.load(folder / f"{name}-fp16.mlpackage", threads=threads), "fp16"),
    }
    x = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    (given,) = (spec.name for spec in programs["fp32"][0].inputs)
    (found,) = programs["fp32"][0].run({given: x}).values()
    (want,) = session.run(None, {session.get_inputs()[0].name: x})
    calls: dict[str, Callable[[], Any]] = {"onnxruntime": lambda: session.run(None, {session.get_inputs()[0].name: x})}
    for key, (program, precision) in programs.items():
        calls[key] = lambda p=program, q=precision: p.run({given: x}, precision=q)  # type: ignore[misc]
    rounds = [{key: timed(call) for key, call in calls.items()} for _ in range(ROUNDS + 1)][1:]  # the first warms up
    result = {"largest_difference": float(np.abs(found - want).max()), "largest_output": float(np.abs(want).max())}
    for key in calls:
        result[f"{key} best_ms"] = round(min(r[key][0] for r in rounds), 1)
        for what, i in (("ratio", 0), ("cpu_ratio", 1)):
            result[f"{key} {what}"] = round(statistics.median(r[key][i] / r["onnxruntime"][i] for r in rounds), 2)
    return result


def bandwidth(threads: int) -> float:
    """GB/s that matrix times vector reads from a matrix far larger than the caches, the best of some rounds."""
    matrix, vector = np.ones((140_000, 960), np.float32), np.ones(960, np.float32)
    parts = np.array_split(np.arange(len(matrix)), threads)
    best = float("inf")
    for _ in range(BANDWIDTH_ROUNDS):
        workers = [threading.Thread(target=np.dot, args=(matrix[p[0] : p[-1] + 1], vector)) for p in parts]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        best = min(best, time.perf_counter() - start)
    return round(matrix.nbytes / best / 1e9, 1)


def child(task: list[str], threads: int, scratch: Path) -> tuple[Any, float]:
    """What this script prints for a task in a process of its own, and the peak memory of that, in MB."""
    # numpy's own threads, too, are as many as onnxruntime's; reading speed is measured with threads of Python's.
    environment = {"OMP_NUM_THREADS": "1" if task[0] == "bandwidth" else str(threads)}
    command = [sys.executable, str(HERE), "--threads", str(threads), "--task", json.dumps(task)]
    cost = measure(command, scratch / "log", environment)
    return json.loads(cost.output), cost.peak_mb


def measure_all(package: Path, networks: Path, threads: int) -> dict[str, Any]:
    """Everything, each in a process of its own."""
    result: dict[str, Any] = {"threads": threads, "decode": {}, "vision": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for name, settings in DECODES.items():
            found, peak = child(["decode", str(package), *json.loads(json.dumps(settings))], threads, Path(scratch))
            result["decode"][name] = found | {"peak_mb": round(peak)}
        for name in NETWORKS:
            result["vision"][name], _ = child(["vision", str(networks), name], threads, Path(scratch))
        speeds = {n: child(["bandwidth"], n, Path(scratch))[0] for n in (1, threads)}
        result["memory"] = {f"GB/s, {n} threads": speed for n, speed in speeds.items()}
    result["load_average"] = os.getloadavg()
    return result


def run_task(task: list[Any], threads: int) -> Any:
    """One measurement, in this process."""
    kind, *arguments = task
    if kind == "decode":
        package, precision, kernels, megabytes = arguments
        return decode(Path(package), precision, kernels, megabytes, threads)
    if kind == "vision":
        return vision(Path(arguments[0]), arguments[1], threads)
    return bandwidth(threads)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--task", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(json.dumps(run_task(json.loads(options.task), options.threads)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        networks = options.networks or Path(scratch)
        if not all((networks / f"{name}.onnx").exists() for name in NETWORKS):
            measure([sys.executable, str(HERE.with_name("coreml_networks.py")), str(networks)], Path(scratch) / "log")
        print(json.dumps(measure_all(next(options.bundle.glob("*.mlpackage")), networks, options.threads), indent=2))


if __name__ == "__main__":
    main()
