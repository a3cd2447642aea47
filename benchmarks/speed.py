"""Decode speed beside onnxruntime-genai, in one run, in turns.  usage: speed.py [--threads N] GENAI_FOLDER BUNDLE...

Prints one JSON object: name -> median tokens a second, and the median over the rounds of its ratio to genai's.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from satchel.runtime.backends import load_backend
from satchel.runtime.bundle import open_bundle

PROMPT, NEW, ROUNDS = 64, 64, 9
Decode = Callable[[], float]


def ours(path: Path, threads: int) -> tuple[str, Decode]:
    """A bundle: name, and a function that decodes NEW tokens after PROMPT and returns tokens a second."""
    bundle = open_bundle(path, verify=False)
    backend = load_backend(bundle.folder, bundle.manifest.entry, threads=threads)

    def run() -> float:
        backend.reset()
        token = int(backend.prefill(list(range(100, 100 + PROMPT))).argmax())
        start = time.perf_counter()
        for _ in range(NEW):
            token = int(backend.step(token).argmax())
        return NEW / (time.perf_counter() - start)

    return f"{bundle.manifest.entry.format} {bundle.manifest.weights.scheme}", run


def genai(folder: Path, threads: int, scratch: Path) -> tuple[str, Decode]:
    """A model by onnxruntime-genai's builder, run by onnxruntime-genai itself."""
    import onnxruntime_genai as og

    copy = scratch / "genai"
    shutil.copytree(folder, copy)
    config: dict[str, Any] = json.loads((copy / "genai_config.json").read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    config["model"]["eos_token_id"] = config["model"]["vocab_size"] - 1  # goes on past the end, as ours does
    (copy / "genai_config.json").write_text(json.dumps(config))
    model = og.Model(str(copy))

    def run() -> float:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=1024, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(list(range(100, 100 + PROMPT)))
        generator.generate_next_token()
        start = time.perf_counter()
        for _ in range(NEW):
            generator.generate_next_token()
        return NEW / (time.perf_counter() - start)

    return "onnxruntime-genai int4", run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("genai", type=Path)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        runs = dict([genai(options.genai, options.threads, Path(scratch))])
        runs |= dict(ours(path, options.threads) for path in options.bundles)
        rounds = [{name: run() for name, run in runs.items()} for _ in range(ROUNDS + 1)][1:]  # the first warms up
    base = "onnxruntime-genai int4"
    print(json.dumps({
        name: {
            "tokens_per_second": round(statistics.median(r[name] for r in rounds), 1),
            "of_genai": round(statistics.median(r[name] / r[base] for r in rounds), 3),
        }
        for name in runs
    }))  # fmt: skip


if __name__ == "__main__":
    main()
