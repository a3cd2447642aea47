"""What bundles hold in memory on this machine, beside what the forecast says of the same plan (docs/forecast.md).

    python benchmarks/held_memory.py BUNDLE... [--prompt N]

Each bundle is opened in a process of its own. Memory of files that are mapped (RssFile) and memory of the process's own
(RssAnon) are told apart, after the runtime is imported, after the model is loaded, and after a prompt.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

ANON, FILE = "RssAnon", "RssFile"


def status() -> dict[str, float]:
    """MB of this process by kind."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {line[0][:-1]: int(line[1]) / 1e3 * 1.024 for line in lines if line and line[0][:-1] in (ANON, FILE)}


def peak() -> float:
    """MB at the most, of both kinds."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3 * 1.024


def measure(bundle: Path, prompt: int) -> dict[str, object]:
    """One bundle, in this process."""
    from satchel.runtime.backends import load_backend
    from satchel.runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    entry = opened.manifest.entry
    if entry.format == "onnx":
        import onnxruntime  # noqa: F401
    else:
        import executorch.extension.llm.custom_ops
        import executorch.extension.pybindings.portable_lib
        import executorch.kernels.quantized  # noqa: F401
    start, before = status(), peak()
    backend = load_backend(opened.folder, entry, threads=1)
    loaded, loading = status(), peak()
    backend.prefill([7])
    backend.step(8)
    one = status()
    backend.reset()
    backend.prefill([i % 1000 for i in range(7, 7 + prompt)])
    backend.step(8)
    asked = status()
    record: dict[str, object] = {
        "bundle": bundle.name,
        "format": entry.format,
        "weights": opened.manifest.weights.scheme,
    }
    record |= {"import": start, "load": _less(loaded, start), "first token": _less(one, start)}
    record |= {f"prompt of {prompt}": _less(asked, start), "peak while loading": round(loading - before)}
    return record | {"peak": round(peak() - before)}


def _less(after: dict[str, float], before: dict[str, float]) -> dict[str, int]:
    return {kind: round(after[kind] - before[kind]) for kind in after}


def main() -> None:
    """Prints one JSON object a bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.bundles[0], options.prompt)))
        return
    for bundle in options.bundles:
        subprocess.run([sys.executable, __file__, "--here", "--prompt", str(options.prompt), str(bundle)], check=True)


if __name__ == "__main__":
    main()
