"""One matrix -> one PalettizedTensor: weighted k-means on normalised rows, and row scales by least squares.

The error that is minimised is sum_rc h[c] * (W[r, c] - scale[r] * lut[index[r, c]])**2, where h[c] is the mean square
of input channel c: the first-order weight of an error in column c on the layer's output.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from satchel.export.palettize.kmeans import kmeans_1d
from satchel.export.palettize.tensors import PalettizedTensor

LOWEST_EXPONENT = -14  # below it lut * 2**exponent could be an fp16 subnormal, which the Neural Engine flushes to zero
HIGHEST_EXPONENT = 8  # 128 * 2**8 is still an fp16 number
ROWS_A_GROUP = 16


@njit(cache=True, nogil=True)
def _assign(w: np.ndarray, scale: np.ndarray, lut: np.ndarray, index: np.ndarray) -> None:
    """index[r, c] = the entry of the ascending lut nearest to w[r, c] / scale[r]."""
    k = lut.size
    middle = (lut[1:] + lut[:-1]) * np.float32(0.5)
    for r in range(w.shape[0]):
        inverse = np.float32(1) / scale[r] if scale[r] > 0 else np.float32(0)
        for c in range(w.shape[1]):
            u = w[r, c] * inverse
            lo, hi = 0, k - 1
            while lo < hi:
                mid = (lo + hi) >> 1
                if u > middle[mid]:
                    lo = mid + 1
                else:
                    hi = mid
            index[r, c] = lo


@njit(cache=True, nogil=True)
def _refit_scales(w: np.ndarray, h: np.ndarray, lut: np.ndarray, index: np.ndarray, scale: np.ndarray) -> None:
    """scale[r] = argmin of the weighted error with lut and index fixed; left alone where that is not positive."""
    for r in range(w.shape[0]):
        above, below = 0.0, 0.0
        for c in range(w.shape[1]):
            entry = lut[index[r, c]]
            above += h[c] * w[r, c] * entry
            below += h[c] * entry * entry
        if above > 0 and below > 0:
            scale[r] = above / below


@njit(cache=True, nogil=True)
def _lloyd(w: np.ndarray, h: np.ndarray, scale: np.ndarray, index: np.ndarray, lut: np.ndarray) -> None:
    """Moves each LUT entry to the weighted mean of its members, on the values themselves."""
    total, mass = np.zeros(lut.size), np.zeros(lut.size)
    for r in range(w.shape[0]):
        s = scale[r]
        for c in range(w.shape[1]):
            total[index[r, c]] += h[c] * s * w[r, c]
            mass[index[r, c]] += h[c] * s * s
    for i in range(lut.size):
        if mass[i] > 0:
            lut[i] = total[i] / mass[i]


def _initial_scales(w: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Weighted root mean square of each row; rows of zeros borrow the smallest of the others."""
    scale = np.sqrt((w * w) @ h / h.sum(), dtype=np.float32)
    live = scale > 0
    scale[~live] = scale[live].min() if live.any() else 1.0
    return scale


def _fit_lut(w: np.ndarray, h: np.ndarray, scale: np.ndarray, index: np.ndarray, bits: int, rounds: int) -> np.ndarray:
    """Alternates k-means and scale refits on one group of rows, in place; float32 [2**bits], ascending."""
    lut = np.zeros(2**bits, np.float32)
    for _ in range(rounds):
        weights = (h[None, :] * (scale * scale)[:, None]).ravel()
        lut = kmeans_1d((w / scale[:, None]).ravel(), weights, 2**bits).astype(np.float32)
        for _ in range(2):
            _assign(w, scale, lut, index)
            _lloyd(w, h, scale, index, lut)
            lut.sort()
        _assign(w, scale, lut, index)
        _refit_scales(w, h, lut, index, scale)
    return lut


def _round_lut(lut: np.ndarray, keep_zero: bool) -> tuple[np.ndarray, float]:
    """The LUT as int8 and the factor that was taken out: lut ~ entries * factor."""
    factor = float(np.abs(lut).max()) / 127 or 1.0
    entries = np.clip(np.round(lut / factor), -128, 127).astype(np.int8)
    if keep_zero:
        entries[np.abs(entries.astype(np.int16)).argmin()] = 0
    return entries, factor


def _split_exponent(scale: np.ndarray) -> tuple[int, np.ndarray]:
    """Row scales -> (exponent, float16 scales >= 1) with scale ~ 2**exponent * float16 scale.

    floor(log2(smallest)) goes into the exponent, within what fp16 can hold on both sides.
    """
    low = int(np.floor(np.log2(scale.min())))
    high = int(np.floor(np.log2(scale.max()))) - 14
    exponent = int(np.clip(max(low, high), LOWEST_EXPONENT, HIGHEST_EXPONENT))
    return exponent, np.maximum(np.ldexp(scale, -exponent), 1).astype(np.float16)


def _fit_group(
    w: np.ndarray, h: np.ndarray, bits: int, rounds: int, index: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray]:
    """One LUT for all rows of w: (int8 entries, exponent, float16 scales); writes index in place."""
    scale = _initial_scales(w, h)
    lut = _fit_lut(w, h, scale, index, bits, rounds)
    entries, factor = _round_lut(lut, keep_zero=bool((~w.any(axis=1)).any()))
    as_float = entries.astype(np.float32)
    scale *= np.float32(factor)
    _assign(w, scale, as_float, index)
    _refit_scales(w, h, as_float, index, scale)
    exponent, half = _split_exponent(scale)
    _assign(w, np.ldexp(half.astype(np.float32), exponent), as_float, index)
    return entries, exponent, half


def palettize(
    w: np.ndarray, h: np.ndarray | None, *, bits: int = 4, groups: int = 1, rounds: int = 3
) -> PalettizedTensor:
    """Fits a palette to one matrix.

    Args:
        w: float32 [rows, columns].
        h: float32 [columns], mean square of each input channel; None weighs all columns alike.
        bits: of an index.
        groups: LUTs, each for rows / groups consecutive rows; must divide rows.
        rounds: alternations of k-means and scale refit.
    """
    rows, columns = w.shape
    w = np.ascontiguousarray(w, np.float32)
    weight = _damped(h, columns)
    index = np.empty(w.shape, np.uint8)
    luts, exponents, scales = [], [], []
    for part in np.split(np.arange(rows), groups):
        at = slice(int(part[0]), int(part[-1]) + 1)
        entries, exponent, half = _fit_group(w[at], weight, bits, rounds, index[at])
        luts.append(entries)
        exponents.append(exponent)
        scales.append(half)
    return PalettizedTensor(index, np.stack(luts), np.array(exponents, np.int8), np.concatenate(scales), bits)


def _damped(h: np.ndarray | None, columns: int) -> np.ndarray:
    """Column weights with a hundredth of their mean added, so that a channel which was silent still counts."""
    if h is None:
        return np.ones(columns, np.float32)
    return np.asarray(h / h.mean() + 0.01, np.float32) if h.mean() > 0 else np.ones(columns, np.float32)


def int8_rows(w: np.ndarray) -> PalettizedTensor:
    """Symmetric 8 bits with a scale a row, said as a palette whose LUT is -128..127 in order.

    Args:
        w: float32 [rows, columns].
    """
    largest = np.abs(w).max(axis=1)
    scale = np.where(largest > 0, largest, largest[largest > 0].min() if largest.any() else 1.0) / 127
    exponent, half = _split_exponent(scale.astype(np.float32))
    step = np.ldexp(half.astype(np.float32), exponent)
    codes = np.clip(np.rint(w / step[:, None]), -127, 127)
    lut = np.arange(-128, 128).astype(np.int8)[None]
    return PalettizedTensor((codes + 128).astype(np.uint8), lut, np.array([exponent], np.int8), half, 8)


def palettize_slow(w: np.ndarray, tensor: PalettizedTensor) -> np.ndarray:
    """The readable twin of the last assignment: the index of the nearest value that `tensor` can say, uint8 [r, c]."""
    out = np.empty(w.shape, np.uint8)
    size = w.shape[0] // tensor.groups
    for r in range(w.shape[0]):
        values = tensor.lut[r // size].astype(np.float64) * 2.0 ** tensor.exponent[r // size] * float(tensor.scale[r])
        out[r] = np.abs(w[r][:, None] - values[None, :]).argmin(axis=1)
    return out
