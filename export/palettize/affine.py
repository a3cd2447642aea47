"""One matrix -> one AffineTensor: 4-bit codes with a scale (and a zero point) for each block of a row.

For each block the range is shrunk step by step and the best of the candidates kept, by the same weighted error as the
palette's; then scale and zero point are refit once by least squares. Quantized from the original weights, never from
a palette.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
from numba import njit

from satchel.export.palettize.fit import damped
from satchel.export.palettize.spec import ScaleDtype
from satchel.export.palettize.tensors import AffineTensor

LEVELS = 15
CANDIDATES = np.array([1.0, 0.92, 0.84, 0.76, 0.68], np.float32)  # shares of the full range; 18 did no better
TOGETHER = 64
"""Rows that are searched side by side; with their sums they fit into a core's nearest cache."""


@njit(cache=True, nogil=True)
def _measure(
    w: np.ndarray, h: np.ndarray, scale: np.ndarray, zero: np.ndarray, error: np.ndarray, refit: np.ndarray
) -> None:
    """The weighted error of each block, and the least-squares scale for its codes; the old one where that is not
    positive.

    Blocks are columns here, and the inner loop goes over them: each has its own sum, so that the compiler may take
    several at once without changing the order of any addition.
    """
    many = scale.size
    inverse, above, below = 1.0 / scale, np.zeros(many), np.zeros(many)
    error[:] = 0.0
    for i in range(w.shape[0]):
        weight, row = h[i], w[i]
        for j in range(many):
            x = row[j]
            q = min(15.0, max(0.0, np.floor(x * inverse[j] + zero[j] + 0.5))) - zero[j]
            d = x - q * scale[j]
            error[j] += weight * d * d
            above[j] += weight * x * q
            below[j] += weight * q * q
    for j in range(many):
        refit[j] = above[j] / below[j] if above[j] > 0 and below[j] > 0 else scale[j]


@njit(cache=True, nogil=True)
def _search_blocks(
    w: np.ndarray, h: np.ndarray, symmetric: bool, candidates: np.ndarray, out_scale: np.ndarray, out_zero: np.ndarray
) -> None:
    """The best scale and zero point of each column of w, float32 [block, columns]."""
    many = w.shape[1]
    low, high = np.zeros(many), np.zeros(many)
    for i in range(w.shape[0]):
        for j in range(many):
            low[j], high[j] = min(low[j], w[i, j]), max(high[j], w[i, j])
    base = np.maximum(-low / 8.0, high / 7.0) if symmetric else (high - low) / 15.0
    empty = high == low
    base[empty] = 1e-4
    best, best_scale, best_zero = np.full(many, np.inf), np.full(many, 1e-4), np.full(many, 8.0)
    error, refit, zero = np.empty(many), np.empty(many), np.full(many, 8.0)
    for shrink in candidates:
        for nudge in range(1 if symmetric else 3):
            scale = base * shrink
            if not symmetric:
                zero = np.minimum(15.0, np.maximum(0.0, np.floor(-low * shrink / scale + 0.5) + (nudge - 1)))
            for _ in range(2):
                _measure(w, h, scale, zero, error, refit)
                for j in range(many):
                    if error[j] < best[j]:
                        best[j], best_scale[j], best_zero[j] = error[j], scale[j], zero[j]
                scale[:] = refit
    for j in range(many):
        out_scale[j] = 1e-4 if empty[j] else best_scale[j]
        out_zero[j] = np.uint8(8 if empty[j] else best_zero[j])


@njit(cache=True, nogil=True)
def _search(
    w: np.ndarray, h: np.ndarray, block: int, symmetric: bool, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows, blocks = w.shape[0], w.shape[1] // block
    scale, zero = np.empty((rows, blocks), np.float32), np.empty((rows, blocks), np.uint8)
    for first in range(0, rows, TOGETHER):
        some = slice(first, min(rows, first + TOGETHER))
        for b in range(blocks):
            at = slice(b * block, (b + 1) * block)
            columns = np.ascontiguousarray(w[some, at].T)
            _search_blocks(columns, h[at], symmetric, candidates, scale[some, b], zero[some, b])
    return scale, zero


@njit(cache=True, nogil=True)
def _codes(w: np.ndarray, scale: np.ndarray, zero: np.ndarray, block: int) -> np.ndarray:
    """The nearest code of each weight, uint8 [rows, columns]."""
    code = np.empty(w.shape, np.uint8)
    least, most, half = np.float32(0), np.float32(LEVELS), np.float32(0.5)
    for r in range(w.shape[0]):
        for b in range(scale.shape[1]):
            step, offset = scale[r, b], np.float32(zero[r, b])
            for i in range(b * block, (b + 1) * block):
                code[r, i] = np.uint8(min(most, max(least, np.floor(w[r, i] / step + offset + half))))
    return code


def round_scale(scale: np.ndarray, dtype: ScaleDtype) -> np.ndarray:
    """Scales rounded to what the file holds, kept away from zero and from subnormals."""
    target = np.float16 if dtype == "float16" else ml_dtypes.bfloat16
    return np.maximum(scale, 6.2e-5).astype(target).astype(np.float32)


def fit_blocks(
    w: np.ndarray, h: np.ndarray | None, *, block: int, symmetric: bool, scale_dtype: ScaleDtype
) -> tuple[np.ndarray, np.ndarray]:
    """The scale and the zero point of every block: (float32, uint8), both [rows, columns / block].

    Arguments as `affine` has them.
    """
    scale, zero = _search(w, damped(h, w.shape[1]), block, symmetric, CANDIDATES)
    return round_scale(scale, scale_dtype), zero


def affine(
    w: np.ndarray,
    h: np.ndarray | None,
    *,
    block: int = 32,
    symmetric: bool = False,
    scale_dtype: ScaleDtype = "float16",
) -> AffineTensor:
    """Fits 4-bit affine codes to one matrix.

    Args:
        w: float32 [rows, columns], columns a multiple of `block`.
        h: float32 [columns], mean square of each input channel; None weighs all columns alike.
        block: weights along a row that share a scale.
        symmetric: zero point 8 everywhere.
        scale_dtype: what the scales are rounded to, before the codes are chosen for the last time.
    """
    w = np.ascontiguousarray(w, np.float32)
    scale, zero = fit_blocks(w, h, block=block, symmetric=symmetric, scale_dtype=scale_dtype)
    return AffineTensor(_codes(w, scale, zero, block), scale, zero, block, scale_dtype)
