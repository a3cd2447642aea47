"""What `satchel coreml diff --against torch` compares with. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from satchel.export.lowering import against_torch
from satchel.runtime.coreml.difference import Side
from satchel.runtime.coreml.difference_report import Report
from satchel.runtime.coreml.sample_inputs import given_inputs, sample_inputs
from satchel.runtime.mil import load


def against_reference(
    package: Path, checkpoint: str, arrays: Mapping[str, np.ndarray] | None, function: str | None, precision: str,
    limit: float | None, seed: int,
) -> Report:  # fmt: skip
    """Walks a package of ours and the decoder in torch; random token ids where no inputs are given, the cache empty."""
    program = load(package)
    side = Side(program, f"{package.name} in {precision}", function, precision)
    if arrays is not None:
        return against_torch(side, checkpoint, given_inputs(program.package, function, arrays), limit)
    drawn = sample_inputs(program.package, function, seed)
    inputs = {name: np.zeros_like(v) if v.dtype.kind == "f" else v for name, v in drawn.items()}
    return against_torch(side, checkpoint, inputs, limit)
