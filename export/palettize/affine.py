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


@njit(cache=True, nogil=True)
def _block_error(w: np.ndarray, h: np.ndarray, scale: float, zero: float) -> float:
    inverse = 1.0 / scale
    error = 0.0
    for i in range(w.size):
        q = min(15.0, max(0.0, np.floor(w[i] * inverse + zero + 0.5)))
        d = w[i] - (q - zero) * scale
        error += h[i] * d * d
    return error


@njit(cache=True, nogil=True)
def _refit(w: np.ndarray, h: np.ndarray, scale: float, zero: float) -> float:
    """The least-squares scale for the codes that (scale, zero) give; the old one where that is not positive."""
    inverse = 1.0 / scale
    above, below = 0.0, 0.0
    for i in range(w.size):
        q = min(15.0, max(0.0, np.floor(w[i] * inverse + zero + 0.5))) - zero
        above += h[i] * w[i] * q
        below += h[i] * q * q
    return above / below if above > 0 and below > 0 else scale


@njit(cache=True, nogil=True)
def _search_block(w: np.ndarray, h: np.ndarray, symmetric: bool, candidates: np.ndarray) -> tuple[float, float]:
    low, high = min(0.0, float(w.min())), max(0.0, float(w.max()))
    if high == low:
        return 1e-4, 8.0
    best, best_scale, best_zero = np.inf, 0.0, 8.0
    base = max(-low / 8.0, high / 7.0) if symmetric else (high - low) / 15.0
    for shrink in candidates:
        for nudge in range(1 if symmetric else 3):
            scale = base * shrink
            zero = 8.0 if symmetric else min(15.0, max(0.0, np.floor(-low * shrink / scale + 0.5) + nudge - 1))
            for _ in range(2):
                error = _block_error(w, h, scale, zero)
                if error < best:
                    best, best_scale, best_zero = error, scale, zero
                scale = _refit(w, h, scale, zero)
    return best_scale, best_zero


@njit(cache=True, nogil=True)
def _search(
    w: np.ndarray, h: np.ndarray, block: int, symmetric: bool, candidates: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    rows, blocks = w.shape[0], w.shape[1] // block
    scale, zero = np.empty((rows, blocks), np.float32), np.empty((rows, blocks), np.uint8)
    for r in range(rows):
        for b in range(blocks):
            at = slice(b * block, (b + 1) * block)
            s, z = _search_block(w[r, at], h[at], symmetric, candidates)
            scale[r, b] = s
            zero[r, b] = np.uint8(z)
    return scale, zero


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
    rows, columns = w.shape
    w = np.ascontiguousarray(w, np.float32)
    scale, zero = fit_blocks(w, h, block=block, symmetric=symmetric, scale_dtype=scale_dtype)
    blocks = w.reshape(rows, -1, block)
    code = np.clip(np.floor(blocks / scale[:, :, None] + zero[:, :, None] + 0.5), 0, LEVELS).astype(np.uint8)
    return AffineTensor(code.reshape(rows, columns), scale, zero, block, scale_dtype)
