"""bfloat16 numbers as fp32, in one pass over mapped files: a streamed model reads its files many times."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

EXPONENT = 0x7F80
"""All bits of it are set in NaN and infinity, and in no number."""


def widen(values: np.ndarray, out: np.ndarray) -> bool:
    """Puts bfloat16 values, contiguous, into float32 `out`, contiguous; says whether all are finite."""
    return bool(_compiled()(values.reshape(-1).view(np.uint16), out.reshape(-1).view(np.uint32)) < EXPONENT)


@cache
def _compiled() -> Callable[[np.ndarray, np.ndarray], int]:
    from numba import njit  # whoever reads no bfloat16 does without it

    compiled: Callable[[np.ndarray, np.ndarray], int] = njit(cache=True, nogil=True)(_widen)
    return compiled


def _widen(halves: np.ndarray, wide: np.ndarray) -> int:
    largest = np.uint16(0)
    for i in range(halves.size):
        largest = max(largest, np.uint16(halves[i] & np.uint16(EXPONENT)))
        wide[i] = np.uint32(halves[i]) << np.uint32(16)  # a bfloat16 number is the upper half of an fp32 one
    return int(largest)
