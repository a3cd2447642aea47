"""8 bits with a scale a row, some rows at a time: embeddings and heads are the largest matrices of a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from satchel.export.palettize.fit import split_exponent
from satchel.export.palettize.tensors import PalettizedTensor

WEIGHTS_A_STEP = 1 << 22


def int8_pieces(read: Callable[[slice], np.ndarray], shape: tuple[int, int]) -> PalettizedTensor:
    """Symmetric 8 bits with a scale a row, said as a palette whose LUT is -128..127 in order.

    Args:
        read: float32 rows of the matrix; each row is asked for twice.
        shape: (rows, columns).
    """
    step = max(1, WEIGHTS_A_STEP // shape[1])
    parts = [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
    largest = np.concatenate([_largest(read(part)) for part in parts])
    scale = np.where(largest > 0, largest, largest[largest > 0].min() if largest.any() else 1.0) / 127
    exponent, half = split_exponent(scale.astype(np.float32))
    unit = np.ldexp(half.astype(np.float32), exponent)
    index = np.empty(shape, np.uint8)
    for part in parts:
        index[part] = np.clip(np.rint(read(part) / unit[part, None]), -127, 127) + 128
    lut = np.arange(-128, 128).astype(np.int8)[None]
    return PalettizedTensor(index, lut, np.array([exponent], np.int8), half, 8)


def _largest(w: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(w.max(axis=1), -w.min(axis=1)))
