"""Weighted values as ascending points (value, mass), which 1-D k-means starts from.

The values are w[r, c] / scale[r] and weigh h[c] * scale[r]**2: a matrix whose rows have scales of their own, and the
squared error that an error of the quotient makes in the matrix.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BINS = 1 << 16
DIGIT = 11  # bits that a pass of the radix sort takes


# Without NaN and signed zeros the order of comparisons does not matter, so the compiler may use vectors.
@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def _extremes(row: np.ndarray) -> tuple[np.float32, np.float32]:
    low, high = row[0], row[0]
    for v in row:
        low = min(low, v)
        high = max(high, v)
    return low, high


@njit(cache=True, nogil=True)
def _range(w: np.ndarray, scale: np.ndarray) -> tuple[np.float32, np.float32]:
    """The smallest and largest w[r, c] / scale[r], as float32."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for r in range(w.shape[0]):
        inverse = np.float32(1) / scale[r]
        row_low, row_high = _extremes(w[r])
        low = min(low, row_low * inverse)
        high = max(high, row_high * inverse)
    return low, high


@njit(cache=True, nogil=True)
def _bins(w: np.ndarray, h: np.ndarray, scale: np.ndarray, low: float, step: float) -> np.ndarray:
    """Sums of mass and of mass * value in bins of equal width, float64 [BINS, 2]."""
    out = np.zeros((BINS, 2))
    for r in range(w.shape[0]):
        inverse, square = np.float32(1) / scale[r], np.float64(scale[r]) * np.float64(scale[r])
        for c in range(w.shape[1]):
            v = w[r, c] * inverse
            b = min(max(int((v - low) * step), 0), BINS - 1)
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
    """Points at the means of narrow bins; none at all where the range of the values is too wide or narrow for them.

    Args:
        w: float32 [rows, columns], finite.
        h: float32 [columns], >= 0.
        scale: float32 [rows], > 0.

    Returns:
        (value, mass > 0), float64 [points], values ascending.
    """
    low, high = _range(w, scale)
    with np.errstate(all="ignore"):
        step = np.float32(BINS - 1) / np.float32(high - low)
    if not (np.isfinite(step) and step > 0):
        return np.empty(0), np.empty(0)
    return _means(_bins(w, h, scale, np.float32(low), step))  # type: ignore[no-any-return]


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
