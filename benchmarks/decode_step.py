"""Opens a bundle as an app does and takes some decode steps of its first golden prompt.  usage: decode_step.py BUNDLE

Logits are held against the golden set "weights": what transformers' model said with the bundle's own weights,
dequantized, in fp32. So what differs is the lowering and the engine's rounding, not the compression; the limits are
validation's (runtime/limits.py). Prints JSON. A Core ML bundle is also inspected, and its packages are checked by the
rules for the device; it then runs in the interpreter, with `--memory` for weights that it may keep expanded.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.backends import load_backend
from satchel.runtime.bundle import Bundle, open_bundle
from satchel.runtime.limits import TIES, Arithmetic, arithmetic, limits_for
from satchel.runtime.replay import RowFigures

PACKED = 4_000_000_000
"""Bytes of an ONNX bundle above which onnxruntime gets no memory to rearrange its weights in."""
UNPACKED = 2
"""Steps at most with weights left in the file: all of them are dequantized anew at each."""


def runs(bundle: Bundle, memory: int) -> Iterator[tuple[str, Arithmetic, dict[str, Any]]]:
    """(name, arithmetic, options of the backend) of each way to run the bundle here."""
    form, scheme = bundle.manifest.entry.format, bundle.manifest.weights.scheme
    if form == "coreml":
        for precision in ("fp32", "fp16"):
            options = {"engine": "interpreter", "precision": precision, "max_memory": memory}
            yield f"interpreter {precision}", arithmetic(form, scheme, precision), options
        return
    if form == "executorch":
        yield "executorch", arithmetic(form, scheme), {}
        return
    if bundle.bytes <= PACKED:
        yield "onnxruntime", arithmetic(form, scheme), {}
    yield "onnxruntime, fp32", "fp32", {"exact": True, "packed": False}


def steps(bundle: Bundle, how: Arithmetic, options: dict[str, Any], count: int) -> dict[str, Any]:
    """What decode steps from an empty cache gave, and which limits they broke."""
    start = time.perf_counter()
    backend = load_backend(bundle.folder, bundle.manifest.entry, **options)
    loaded = time.perf_counter()
    logits = np.stack([backend.step(token) for token in bundle.golden.prompts[0].sequence[:count]])
    stepped = time.perf_counter()
    found = RowFigures()
    found.add(bundle.golden.sets["weights"], np.arange(len(logits)), logits)
    figures = found.figures(TIES[how])
    broken = [
        limit.figure
        for limit in limits_for("lowering", how, bundle.manifest.weights.scheme)
        if (value := figures.get(limit.figure)) is not None and not limit.allows(value)
    ]
    return {
        "load_seconds": round(loaded - start, 2), "step_seconds": round((stepped - loaded) / len(logits), 2),
        "steps": len(logits), "finite": bool(np.isfinite(logits).all()), "arithmetic": how, "broken": broken,
        **{name: float(f"{figures[name]:.3g}") for name in ("kl_mean", "kl_max", "difference_max", "top1_or_tie")},
    }  # fmt: skip


def opened(bundle: Bundle) -> dict[str, Any]:
    """What inspect and check say of Core ML packages: their number, the largest file of weights, and broken rules."""
    from satchel.runtime.coreml.checks import check_package
    from satchel.runtime.inspect import inspect_path

    entry, device = bundle.manifest.entry, bundle.manifest.plan.device
    reports = [check_package(bundle.folder / path, device) for path in entry.paths]
    errors = sorted({f.rule.id for r in reports for group in r.grouped() for f in group if f.severity == "error"})
    largest = max(p.stat().st_size for p in bundle.folder.rglob("weight.bin"))
    return {
        "packages": len(entry.paths),
        "largest": largest,
        "errors": errors,
        "inspected": bool(inspect_path(bundle.folder)),
    }


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--memory", type=int, default=1_000_000_000, help="bytes, of the interpreter")
    parser.add_argument("--run", help="only the run of this name")
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)  # every hash is checked
    found: dict[str, Any] = {"opened": opened(bundle) if bundle.manifest.entry.format == "coreml" else {}, "runs": {}}
    for name, how, settings in runs(bundle, options.memory):
        if options.run in (None, name):
            count = options.steps if settings.get("packed", True) else min(UNPACKED, options.steps)
            found["runs"][name] = steps(bundle, how, settings, count)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
