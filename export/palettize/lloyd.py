"""Steps that bring a LUT and the row scales of a matrix nearer to its values, each as one pass over its rows.

Sums are gathered in a fixed order that depends on the shape alone: results are the same bytes whatever the number of
threads and the width of the machine's vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numba import config, njit

TABLE = 1024  # bins of the constant-time search for the nearest entry
COMPARED = 16  # entries up to which comparing a value with every border, in vectors, is faster than that search
BLOCK = 1024  # columns that stay in the fastest cache meanwhile
LANES = 16  # independent sums
COPIES = 4  # of the sums of each entry, so that an addition need not wait for the one before it
CHUNK = 1 << 18  # weights in the rows that one thread takes at a time

Part = TypeVar("Part")
Result = TypeVar("Result")


def in_threads(work: Callable[[Part], Result], parts: Iterable[Part], weights: int) -> list[Result]:
    """work of each part, in order; in threads where there are `weights` enough. NUMBA_NUM_THREADS limits them."""
    parts = list(parts)
    threads = min(config.NUMBA_NUM_THREADS, len(parts))
    if threads < 2 or weights < 2 * CHUNK:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))


def chunks(shape: tuple[int, ...]) -> list[slice]:
    """Consecutive rows of a matrix, CHUNK weights at a time."""
    size = max(1, CHUNK // max(shape[1], 1))
    return [slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size)]


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
def _count_borders(u: np.ndarray, borders: np.ndarray, out: np.ndarray) -> None:
    """out[c] = how many borders are below u[c]."""
    for c in range(u.size):
        out[c] = 0
    for border in borders:
        for c in range(u.size):
            out[c] += np.uint8(u[c] > border)


@njit(cache=True, nogil=True)
def _nearest_in_row(
    row: np.ndarray, inverse: float, borders: np.ndarray, table: np.ndarray, buffer: np.ndarray, out: np.ndarray
) -> None:
    """out[c] = the entry nearest to row[c] * inverse; ties go to the lower one."""
    if borders.size < COMPARED:
        for start in range(0, row.size, BLOCK):
            part = row[start : start + BLOCK]
            for c in range(part.size):
                buffer[c] = part[c] * inverse
            _count_borders(buffer[: part.size], borders, out[start : start + BLOCK])
        return
    span = borders[-1] - borders[0]
    step = np.float32(TABLE - 1) / span if span > 0 else np.float32(0)
    for c in range(row.size):
        out[c] = nearest(row[c] * inverse, borders, table, step)


@njit(cache=True, nogil=True)
def _assign(w: np.ndarray, scale: np.ndarray, lut: np.ndarray, index: np.ndarray) -> None:
    borders, table = lookup(lut)
    buffer = np.empty(BLOCK, np.float32)
    for r in range(w.shape[0]):
        _nearest_in_row(w[r], np.float32(1) / scale[r], borders, table, buffer, index[r])


@njit(cache=True, nogil=True)
def _sum_by_entry(row: np.ndarray, h: np.ndarray, at: np.ndarray, parts: np.ndarray, out: np.ndarray) -> None:
    """out[entry] = sums of h * row and of h over the columns of each entry; `parts` [COPIES, entries, 2] is scratch."""
    parts[:] = 0
    for c in range(row.size):
        weight = np.float64(h[c])
        parts[c % COPIES, at[c], 0] += weight * row[c]
        parts[c % COPIES, at[c], 1] += weight
    out[:] = parts[0]
    for copy in range(1, COPIES):
        out += parts[copy]


@njit(cache=True, nogil=True)
def _refit(w: np.ndarray, h: np.ndarray, scale: np.ndarray, lut: np.ndarray, stride: float) -> np.ndarray:
    borders, table = lookup(lut)
    buffer, at = np.empty(BLOCK, np.float32), np.empty(w.shape[1], np.uint8)
    parts, own = np.empty((COPIES, lut.size, 2)), np.empty((lut.size, 2))
    sums = np.zeros((lut.size, 2))
    for r in range(w.shape[0]):
        _nearest_in_row(w[r], np.float32(1) / scale[r], borders, table, buffer, at)
        _sum_by_entry(w[r], h, at, parts, own)
        above, below = 0.0, 0.0
        for e in range(lut.size):
            above += lut[e] * own[e, 0]
            below += lut[e] * lut[e] * own[e, 1]
        if above > 0 and below > 0:
            scale[r] *= (above / below / scale[r]) ** stride
        s = np.float64(scale[r])
        for e in range(lut.size):
            sums[e, 0] += s * own[e, 0]
            sums[e, 1] += s * s * own[e, 1]
    return sums


@njit(cache=True, nogil=True)
def _mean_squares(w: np.ndarray, h: np.ndarray, out: np.ndarray) -> None:
    lanes = np.zeros(LANES)
    for r in range(w.shape[0]):
        lanes[:] = 0
        whole = w.shape[1] // LANES * LANES
        for start in range(0, whole, LANES):
            for lane in range(LANES):
                value = np.float64(w[r, start + lane])
                lanes[lane] += value * value * h[start + lane]
        total = lanes.sum()
        for c in range(whole, w.shape[1]):
            total += np.float64(w[r, c]) * w[r, c] * h[c]
        out[r] = total


def assign(w: np.ndarray, scale: np.ndarray, lut: np.ndarray, index: np.ndarray) -> None:
    """index[r, c] (uint8) = the entry nearest to w[r, c] / scale[r]; ties go to the lower one.

    Args:
        w: float32 [rows, columns], rows contiguous.
        scale: float32 [rows], > 0.
        lut: float32 [entries], ascending.
        index: written to.
    """
    in_threads(lambda rows: _assign(w[rows], scale[rows], lut, index[rows]), chunks(w.shape), w.size)


def refit(
    w: np.ndarray, h: np.ndarray, scale: np.ndarray, lut: np.ndarray, stride: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Sets scale[r] to the best one for the entries nearest to w[r] / scale[r], where that is positive.

    Args:
        w, scale, lut: as for `assign`.
        h: float32 [columns], weights.
        stride: power of the ratio by which a scale changes; above 1 it goes beyond the best one for these entries.

    Returns:
        For the same entries and the new scales, the LUT whose error is least (float32 [entries], ascending), and by how
        much a squared error in each of its entries counts (float64 [entries]).
    """
    parts = in_threads(lambda rows: _refit(w[rows], h, scale[rows], lut, stride), chunks(w.shape), w.size)
    above, mass = np.sum(parts, axis=0).T
    best = np.where(mass > 0, above / np.where(mass > 0, mass, 1), lut)
    order = np.argsort(best, kind="stable")
    return best[order].astype(np.float32), mass[order]


def mean_squares(w: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Weighted sum of the squares of each row, float64 [rows]; arguments as for `refit`."""
    out = np.empty(w.shape[0])
    in_threads(lambda rows: _mean_squares(w[rows], h, out[rows]), chunks(w.shape), w.size)
    return out


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _largest(row: np.ndarray) -> np.float32:
    """The largest absolute value; without NaN the order does not matter, so the compiler may use vectors."""
    out = np.float32(0)
    for v in row:
        out = max(out, abs(v))
    return out


@njit(cache=True, nogil=True)
def _largest_in_rows(w: np.ndarray, out: np.ndarray) -> None:
    for r in range(w.shape[0]):
        out[r] = _largest(w[r])


@njit(cache=True, nogil=True)
def _round_rows(w: np.ndarray, step: np.ndarray, index: np.ndarray) -> None:
    for r in range(w.shape[0]):
        for c in range(w.shape[1]):
            rounded = np.rint(w[r, c] / step[r])
            index[r, c] = np.uint8(np.int32(min(max(rounded, np.float32(-127)), np.float32(127))) + 128)


def largest_in_rows(w: np.ndarray) -> np.ndarray:
    """The largest absolute value of each row, float32 [rows]."""
    out = np.empty(w.shape[0], np.float32)
    in_threads(lambda rows: _largest_in_rows(w[rows], out[rows]), chunks(w.shape), w.size)
    return out


def round_rows(w: np.ndarray, step: np.ndarray, index: np.ndarray) -> None:
    """index[r, c] = w[r, c] / step[r] to the nearest whole number, at most 127 from zero, plus 128.

    Args:
        w: float32 [rows, columns].
        step: float32 [rows], > 0.
        index: uint8 [rows, columns], written to.
    """
    in_threads(lambda rows: _round_rows(w[rows], step[rows], index[rows]), chunks(w.shape), w.size)
