"""Weighted values as ascending points (value, mass), which 1-D k-means starts from.

The values are w[r, c] / scale[r] and weigh h[c] * scale[r]**2: a matrix whose rows have scales of their own, and the
squared error that an error of the quotient makes in the matrix.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BINS = 1 << 16
LANES = 16  # independent sums, so that vectors can be used in the order that is written
DIGIT = 11  # bits that a pass of the radix sort takes


@njit(cache=True, nogil=True)
def _mean_size(w: np.ndarray, h: np.ndarray, scale: np.ndarray) -> float:
    """Weighted mean of the absolute values."""
    lanes, whole = np.empty(LANES), w.shape[1] // LANES * LANES
    total, mass = 0.0, 0.0
    for r in range(w.shape[0]):
        lanes[:] = 0
        for start in range(0, whole, LANES):
            for lane in range(LANES):
                lanes[lane] += np.float64(abs(w[r, start + lane])) * h[start + lane]
        above = lanes.sum()
        for c in range(whole, w.shape[1]):
            above += np.float64(abs(w[r, c])) * h[c]
        total += above * scale[r]
        mass += np.float64(scale[r]) * scale[r]
    return total / (mass * h.astype(np.float64).sum())


@njit(cache=True, nogil=True)
def _bins(w: np.ndarray, h: np.ndarray, scale: np.ndarray, size: float) -> np.ndarray:
    """Sums of mass and of mass * value in bins of equal width of v / (size + |v|), float64 [BINS, 2]."""
    out = np.zeros((BINS, 2))
    for r in range(w.shape[0]):
        inverse, square = np.float32(1) / scale[r], np.float64(scale[r]) * np.float64(scale[r])
        for c in range(w.shape[1]):
            v = np.float64(w[r, c] * inverse)
            b = min(max(int(BINS // 2 + (BINS // 2) * (v / (size + abs(v)))), 0), BINS - 1)
            mass = h[c] * square
            out[b, 0] += mass
            out[b, 1] += mass * v
    return out


@njit(cache=True, nogil=True)
def _means(bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, mass) of the bins that have any mass."""
    value, mass, n = np.empty(BINS), np.empty(BINS), 0
    for b in range(BINS):
        if bins[b, 0] > 0:
            mass[n] = bins[b, 0]
            value[n] = bins[b, 1] / bins[b, 0]
            n += 1
    return value[:n], mass[:n]


def binned(w: np.ndarray, h: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points at the means of bins that are narrow where values of usual size lie, and wider outwards.

    Args:
        w: float32 [rows, columns], finite.
        h: float32 [columns], >= 0.
        scale: float32 [rows], > 0.

    Returns:
        (value, mass > 0), float64 [points], values ascending.
    """
    size = _mean_size(w, h, scale) or 1.0
    return _means(_bins(w, h, scale, size))  # type: ignore[no-any-return]


@njit(cache=True, nogil=True)
def _radix_sort(keys: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both arrays in ascending order of the keys (uint32), equal keys in their old order; three passes of 11 bits."""
    n = keys.size
    for shift in range(0, 32, DIGIT):
        at = np.zeros((1 << DIGIT) + 1, np.int64)
        for key in keys:
            at[((key >> np.uint32(shift)) & np.uint32((1 << DIGIT) - 1)) + 1] += 1
        at = np.cumsum(at)
        next_keys, next_mass = np.empty_like(keys), np.empty_like(mass)
        for i in range(n):
            digit = (keys[i] >> np.uint32(shift)) & np.uint32((1 << DIGIT) - 1)
            next_keys[at[digit]] = keys[i]
            next_mass[at[digit]] = mass[i]
            at[digit] += 1
        keys, mass = next_keys, next_mass
    return keys, mass


@njit(cache=True, nogil=True)
def _merge(keys: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(key, mass) of each distinct key that has mass, from ascending keys."""
    key, total, n = np.empty_like(keys), np.empty(keys.size), 0
    for i in range(keys.size):
        if mass[i] <= 0:
            continue
        if n and key[n - 1] == keys[i]:
            total[n - 1] += mass[i]
        else:
            key[n], total[n] = keys[i], mass[i]
            n += 1
    return key[:n], total[:n]


def distinct(w: np.ndarray, h: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A point for each distinct value that has mass; arguments and result as for `binned`."""
    values = (w * (np.float32(1) / scale)[:, None] + np.float32(0)).ravel()  # + 0: there is one zero
    square = np.square(scale.astype(np.float64))
    mass = (h.astype(np.float64) * square[:, None]).ravel()
    # The order of floats is that of their bits once negative ones are inverted and positive ones above them.
    bits = values.view(np.uint32)
    keys, mass = _merge(*_radix_sort(np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)), mass))
    bits = np.where(keys >> 31, keys & np.uint32((1 << 31) - 1), ~keys)
    return bits.view(np.float32).astype(np.float64), mass
