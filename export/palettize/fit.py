"""One matrix -> one PalettizedTensor: weighted k-means on normalised rows, and row scales by least squares.

The error that is minimised is sum_rc h[c] * (W[r, c] - scale[r] * lut[index[r, c]])**2, where h[c] is the mean square
of input channel c: the first-order weight of an error in column c on the layer's output.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from satchel.export.palettize.kmeans import kmeans_rows
from satchel.export.palettize.tensors import PalettizedTensor

LOWEST_EXPONENT = -14  # below it lut * 2**exponent could be an fp16 subnormal, which the Neural Engine flushes to zero
HIGHEST_EXPONENT = 8  # 128 * 2**8 is still an fp16 number
ROWS_A_GROUP = 16
TABLE = 1024  # bins of the constant-time search for the nearest entry
LLOYD_STEPS = 2
ROWS_A_STEP = 2048  # of an embedding that are worked on at a time, since its intermediates would be the largest of all


@njit(cache=True, nogil=True)
def lookup(lut: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the nearest entry in constant time: borders between entries, and each bin's first candidate."""
    borders = (lut[1:] + lut[:-1]) * np.float32(0.5)
    table = np.zeros(TABLE + 1, np.uint8)
    if borders.size == 0 or borders[-1] <= borders[0]:
        return borders, table
    step = (borders[-1] - borders[0]) / np.float32(TABLE - 1)
    at = 0
    for i in range(TABLE + 1):
        # One bin lower than exact, against rounding: candidates only move up from there.
        edge = borders[0] + np.float32(i - 1) * step
        while at < borders.size and edge > borders[at]:
            at += 1
        table[i] = at
    return borders, table


@njit(cache=True, nogil=True, inline="always")
def nearest(u: float, borders: np.ndarray, table: np.ndarray, inverse_step: float) -> int:
    """The entry nearest to u, by what `lookup` gives; inverse_step is TABLE - 1 over the span of the borders."""
    place = (u - borders[0]) * inverse_step
    at = int(table[int(min(max(place, np.float32(0)), np.float32(TABLE)))])
    while at < borders.size and u > borders[at]:
        at += 1
    return at


@njit(cache=True, nogil=True)
def _assign(
    w: np.ndarray, h: np.ndarray, scale: np.ndarray, lut: np.ndarray, index: np.ndarray, refit: bool, sums: np.ndarray
) -> None:
    """index[r, c] = the entry of the ascending lut nearest to w[r, c] / scale[r]; ties go to the lower one.

    Beside it, in the same pass: with `refit`, scale[r] becomes the argmin of the weighted error for the new indices
    (left alone where that is not positive); and sums [2, entries] gets, for each entry, the weighted sum of its members
    over the old scale and the sum of their weights, whose quotient is the best entry.
    """
    borders, table = lookup(lut)
    span = borders[-1] - borders[0]
    inverse_step = np.float32(TABLE - 1) / span if span > 0 else np.float32(0)
    sums[:] = 0
    for r in range(w.shape[0]):
        s = scale[r]
        inverse = np.float32(1) / s if s > 0 else np.float32(0)
        above, below = np.float32(0), np.float32(0)
        for c in range(w.shape[1]):
            at = nearest(w[r, c] * inverse, borders, table, inverse_step)
            index[r, c] = at
            entry, weight, value = lut[at], h[c], w[r, c]
            above += weight * value * entry
            below += weight * entry * entry
            sums[0, at] += weight * s * value
            sums[1, at] += weight * s * s
        if refit and above > 0 and below > 0:
            scale[r] = above / below


def _moved(lut: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Each entry at the weighted mean of its members, ascending; one without members stays."""
    mass = np.maximum(sums[1], np.finfo(np.float64).tiny)
    return np.sort(np.where(sums[1] > 0, sums[0] / mass, lut)).astype(np.float32)


def _initial_scales(w: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Weighted root mean square of each row; rows of zeros borrow the smallest of the others."""
    scale = np.sqrt((w * w) @ h / h.sum(), dtype=np.float32)
    live = scale > 0
    scale[~live] = scale[live].min() if live.any() else 1.0
    return scale


def _fit_lut(w: np.ndarray, h: np.ndarray, scale: np.ndarray, index: np.ndarray, bits: int, rounds: int) -> np.ndarray:
    """Alternates k-means and scale refits on one group of rows, in place; float32 [2**bits], ascending."""
    sums = np.zeros((2, 2**bits))
    lut = np.zeros(2**bits, np.float32)
    for _ in range(rounds):
        lut = kmeans_rows(w, h, scale, 2**bits).astype(np.float32)
        for _ in range(LLOYD_STEPS):
            _assign(w, h, scale, lut, index, False, sums)
            lut = _moved(lut, sums)
        _assign(w, h, scale, lut, index, True, sums)
    return lut


def _round_lut(lut: np.ndarray, keep_zero: bool) -> tuple[np.ndarray, float]:
    """The LUT as int8 and the factor that was taken out: lut ~ entries * factor."""
    factor = float(np.abs(lut).max()) / 127 or 1.0
    entries = np.clip(np.round(lut / factor), -128, 127).astype(np.int8)
    if keep_zero:
        entries[np.abs(entries.astype(np.int16)).argmin()] = 0
    return entries, factor


def split_exponent(scale: np.ndarray) -> tuple[int, np.ndarray]:
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
    as_float, sums = entries.astype(np.float32), np.zeros((2, 2**bits))
    scale *= np.float32(factor)
    _assign(w, h, scale, as_float, index, True, sums)
    exponent, half = split_exponent(scale)
    _assign(w, h, np.ldexp(half.astype(np.float32), exponent), as_float, index, False, sums)
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
    weight = damped(h, columns)
    index = np.empty(w.shape, np.uint8)
    luts, exponents, scales = [], [], []
    for part in np.split(np.arange(rows), groups):
        at = slice(int(part[0]), int(part[-1]) + 1)
        entries, exponent, half = _fit_group(w[at], weight, bits, rounds, index[at])
        luts.append(entries)
        exponents.append(exponent)
        scales.append(half)
    return PalettizedTensor(index, np.stack(luts), np.array(exponents, np.int8), np.concatenate(scales), bits)


def damped(h: np.ndarray | None, columns: int) -> np.ndarray:
    """Column weights with a hundredth of their mean added, so that a channel which was silent still counts."""
    if h is None:
        return np.ones(columns, np.float32)
    return np.asarray(h / h.mean() + 0.01, np.float32) if h.mean() > 0 else np.ones(columns, np.float32)


def int8_rows(w: np.ndarray) -> PalettizedTensor:
    """Symmetric 8 bits with a scale a row, said as a palette whose LUT is -128..127 in order.

    Args:
        w: float32 [rows, columns].
    """
    largest = np.maximum(w.max(axis=1), -w.min(axis=1))
    scale = np.where(largest > 0, largest, largest[largest > 0].min() if largest.any() else 1.0) / 127
    exponent, half = split_exponent(scale.astype(np.float32))
    step = np.ldexp(half.astype(np.float32), exponent)
    index = np.empty(w.shape, np.uint8)
    for start in range(0, w.shape[0], ROWS_A_STEP):
        part = slice(start, start + ROWS_A_STEP)
        index[part] = np.clip(np.rint(w[part] / step[part, None]), -127, 127) + 128
    lut = np.arange(-128, 128).astype(np.int8)[None]
    return PalettizedTensor(index, lut, np.array([exponent], np.int8), half, 8)


def palettize_slow(w: np.ndarray, tensor: PalettizedTensor) -> np.ndarray:
    """The readable twin of the last assignment: the index of the nearest value that `tensor` can say, uint8 [r, c]."""
    out = np.empty(w.shape, np.uint8)
    size = w.shape[0] // tensor.groups
    for r in range(w.shape[0]):
        values = tensor.lut[r // size].astype(np.float64) * 2.0 ** tensor.exponent[r // size] * float(tensor.scale[r])
        out[r] = np.abs(w[r][:, None] - values[None, :]).argmin(axis=1)
    return out
