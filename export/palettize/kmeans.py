"""Weighted k-means in one dimension: the best LUT for given values, to 1e-4 of the optimum and nearly always closer.

In one dimension the optimal clusters are intervals of the sorted values, and dynamic programming finds them; the
divide-and-conquer form (the best split moves monotonically) costs O(k * cuts * log cuts). See Wang and Song,
"Ckmeans.1d.dp" (The R Journal, 2011), and Gronlund et al., "Fast Exact k-Means, k-Medians and Bregman Divergence
Clustering in 1D" (2017). Sums over any interval come from prefix sums, so it need not see the values again:

1. Points in ascending order (points.py): what falls into one of many fine bins, or each distinct value.
2. A few hundred cuts between them, dense where an interval between two cuts would cost most; the optimum over these.
3. Each border moves within a window of finer and finer cuts, all borders at once, until single points are reached.

Steps 2 and 3 take the same time whatever the number of values is.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit

from satchel.export.palettize.points import binned, distinct

SORTED = 1 << 14  # values up to which sorting is as fast as binning
CUTS = 512
CUTS_A_CENTROID = 8
REACH = 8  # cuts on each side of a border in one window
DEEPEST = 200  # windows that follow one border, against an endless loop; a dozen is usual
BORDER_LOSS = 1e-4  # of the error: what moving whole bins might change; dividing one gains a quarter of it at most


@njit(cache=True, nogil=True, inline="always")
def _cost(sums: np.ndarray, i: int, j: int) -> float:
    """Weighted squared error of one cluster over the points i..j-1."""
    mass = sums[j, 0] - sums[i, 0]
    if mass <= 0.0:
        return 0.0
    first = sums[j, 1] - sums[i, 1]
    return max(0.0, sums[j, 2] - sums[i, 2] - first * first / mass)


@njit(cache=True, nogil=True)
def _prefix_sums(value: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, float]:
    """Prefix sums of mass * (value - median)**(0, 1, 2), float64 [points + 1, 3], and the median.

    They count from the median outwards, so that an interval near it loses no digits to far outliers on either side.
    """
    n, half, before, middle = value.size, mass.sum() / 2, 0.0, 0
    while middle < n - 1 and before + mass[middle] < half:
        before += mass[middle]
        middle += 1
    median = value[middle]
    sums = np.zeros((n + 1, 3))
    for i in range(middle, n):
        d = value[i] - median
        sums[i + 1, 0] = sums[i, 0] + mass[i]
        sums[i + 1, 1] = sums[i, 1] + mass[i] * d
        sums[i + 1, 2] = sums[i, 2] + mass[i] * d * d
    for i in range(middle - 1, -1, -1):
        d = value[i] - median
        sums[i, 0] = sums[i + 1, 0] - mass[i]
        sums[i, 1] = sums[i + 1, 1] - mass[i] * d
        sums[i, 2] = sums[i + 1, 2] - mass[i] * d * d
    return sums, median


@njit(cache=True, nogil=True)
def _mean(value: np.ndarray, sums: np.ndarray, median: float, i: int, j: int) -> float:
    """Of the points i..j-1; the first of them where their mass vanishes beside that of others."""
    mass = sums[j, 0] - sums[i, 0]
    return median + (sums[j, 1] - sums[i, 1]) / mass if mass > 0 else value[i]


@njit(cache=True, nogil=True)
def _split(value: np.ndarray, sums: np.ndarray, median: float, i: int, j: int) -> int:
    """Where the points i..j-1 divide at their mean, both parts nonempty."""
    at = i + int(np.searchsorted(value[i:j], _mean(value, sums, median, i, j)))
    return min(max(at, i + 1), j - 1)


@njit(cache=True, nogil=True)
def _cuts(value: np.ndarray, sums: np.ndarray, median: float, wanted: int) -> np.ndarray:
    """Ascending cuts from 0 to n, at least `wanted` of them where there are so many points.

    Intervals divide until each costs less than a limit; its eighth would double their number.
    """
    n = value.size
    cuts = np.array([0, n])
    limit = _cost(sums, 0, n)
    lowest = limit * 1e-18
    while cuts.size <= min(wanted, n) and limit > lowest:
        limit /= 4
        finer = np.empty(n + 1 if n < 8 * wanted else 8 * wanted + 1, np.int64)
        finer[0], count = 0, 1
        for a in range(cuts.size - 1):
            count = _divide(value, sums, median, cuts[a], cuts[a + 1], limit, finer, count, cuts.size - a)
        cuts = finer[:count].copy()
    return cuts


@njit(cache=True, nogil=True)
def _divide(
    value: np.ndarray,
    sums: np.ndarray,
    median: float,
    i: int,
    end: int,
    limit: float,
    out: np.ndarray,
    count: int,
    reserved: int,
) -> int:
    """Appends the cuts after i, up to and including `end`, to out[count:]; the last `reserved` places stay free."""
    stack = np.empty(64, np.int64)
    stack[0], top = end, 0
    while top >= 0:
        j = stack[top]
        if j - i > 1 and top < 63 and count + top + reserved < out.size and _cost(sums, i, j) > limit:
            top += 1
            stack[top] = _split(value, sums, median, i, j)
        else:
            out[count] = j
            count += 1
            i = j
            top -= 1
    return count


@njit(cache=True, nogil=True)
def _layer(prev: np.ndarray, sums: np.ndarray, least: np.ndarray, cur: np.ndarray, arg: np.ndarray) -> None:
    """cur[j] = min over i <= j of prev[i] + cost(i, j), by divide and conquer on a stack of index ranges.

    The best i is no lower than `least`, what it was with one cluster less.
    """
    n = cur.size - 1
    stack = np.empty((4 * 64, 4), np.int64)
    top = 0
    stack[0] = (0, n, 0, n)
    while top >= 0:
        lo, hi, opt_lo, opt_hi = stack[top]
        top -= 1
        if lo > hi:
            continue
        mid = (lo + hi) // 2
        best, best_i = np.inf, opt_lo
        for i in range(max(opt_lo, least[mid]), min(mid, opt_hi) + 1):
            c = prev[i] + _cost(sums, i, mid)
            if c < best:
                best, best_i = c, i
        cur[mid] = best
        arg[mid] = best_i
        top += 1
        stack[top] = (lo, mid - 1, opt_lo, best_i)
        top += 1
        stack[top] = (mid + 1, hi, best_i, opt_hi)


@njit(cache=True, nogil=True)
def _best_cuts(sums: np.ndarray, k: int) -> np.ndarray:
    """The k + 1 ends of the best k intervals, int64, from prefix sums at the cuts that may be chosen."""
    n = sums.shape[0] - 1
    args = np.zeros((k, n + 1), np.int64)
    prev = np.array([_cost(sums, 0, j) for j in range(n + 1)])
    for layer in range(1, k):
        cur = np.full(n + 1, np.inf)
        _layer(prev, sums, args[layer - 1], cur, args[layer])
        prev = cur
    ends = np.empty(k + 1, np.int64)
    ends[k] = n
    for layer in range(k - 1, -1, -1):
        ends[layer] = args[layer, ends[layer + 1]]
    return ends


@njit(cache=True, nogil=True)
def _best_in_windows(sums: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """The best choice of one cut from each row of `windows` [borders, cuts], ascending; int64 [borders]."""
    borders, width = windows.shape
    total = np.empty((borders, width))
    arg = np.zeros((borders, width), np.int64)
    for b in range(borders):
        for at in range(width):
            j = windows[b, at]
            best = _cost(sums, 0, j) if b == 0 else np.inf
            for before in range(width if b else 0):
                i = windows[b - 1, before]
                if i > j:
                    break
                c = total[b - 1, before] + _cost(sums, i, j)
                if c < best:
                    best, arg[b, at] = c, before
            total[b, at] = best
    n = sums.shape[0] - 1
    last = np.array([total[borders - 1, at] + _cost(sums, windows[borders - 1, at], n) for at in range(width)])
    at = int(np.argmin(last))
    chosen = np.empty(borders, np.int64)
    for b in range(borders - 1, -1, -1):
        chosen[b] = windows[b, at]
        at = arg[b, at]
    return chosen


@njit(cache=True, nogil=True)
def _refine(sums: np.ndarray, borders: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Moves borders, each at first within `reach` points, to where moving none within REACH points makes it better."""
    n = sums.shape[0] - 1
    windows = np.empty((borders.size, 2 * REACH + 1), np.int64)
    for _ in range(DEEPEST):
        step = np.maximum((reach + REACH - 1) // REACH, 1)
        for b in range(borders.size):
            for at in range(2 * REACH + 1):
                windows[b, at] = min(max(borders[b] + (at - REACH) * step[b], 0), n)
        chosen = _best_in_windows(sums, windows)
        moved = np.abs(chosen - borders)
        if step.max() == 1 and moved.max() == 0:
            break
        # What stopped at the end of its window would go on; the others need twice their step at most.
        reach = np.where(moved >= REACH * step, reach, 2 * step)
        borders = chosen
    return borders


@njit(cache=True, nogil=True)
def _cluster(value: np.ndarray, mass: np.ndarray, k: int) -> tuple[np.ndarray, float, float]:
    """The best k intervals of ascending points.

    Returns:
        Centroids (float64 [k], ascending, the last one repeated where there are fewer points than k), their error, and
        by how much it changes at most if a point beside each border went to the other side.
    """
    sums, median = _prefix_sums(value, mass)
    n, used = value.size, min(k, value.size)
    if used == n:
        ends = np.arange(n + 1)
    else:
        cuts = _cuts(value, sums, median, CUTS + CUTS_A_CENTROID * k)
        best = _best_cuts(sums[cuts], min(used, cuts.size - 1))
        ends = np.empty(best.size, np.int64)
        reach = np.empty(best.size, np.int64)
        for b in range(best.size):
            at = best[b]
            ends[b] = cuts[at]
            reach[b] = max(cuts[min(at + 1, cuts.size - 1)] - cuts[at], cuts[at] - cuts[max(at - 1, 0)])
        if ends.size > 2:
            ends[1:-1] = _refine(sums, ends[1:-1].copy(), reach[1:-1].copy())
    out, count, error, slack = np.empty(k), 0, 0.0, 0.0
    for b in range(ends.size - 1):
        i, j = ends[b], ends[b + 1]
        if i == j:
            continue
        out[count] = _mean(value, sums, median, i, j)
        error += _cost(sums, i, j)
        if count:
            slack += max(mass[i - 1], mass[i]) * (out[count] - out[count - 1]) * (value[i] - value[i - 1])
        count += 1
    out[count:] = out[count - 1]
    return np.sort(out), error, slack


def kmeans_rows(w: np.ndarray, h: np.ndarray, scale: np.ndarray, k: int) -> np.ndarray:
    """The k centroids that minimise the weighted squared error of w[r, c] / scale[r], weights h[c] * scale[r]**2.

    Args:
        w: float32 [rows, columns], finite.
        h: float32 [columns], >= 0, not all zero.
        scale: float32 [rows], > 0.
        k: number of centroids.

    Returns:
        float64 [k], ascending; the last one repeats where there are fewer distinct values than k.
    """
    if w.size > SORTED:
        value, mass = binned(w, h, scale)
        if value.size > k:
            out, error, slack = _cluster(value, mass, k)
            if slack <= BORDER_LOSS * error:
                return np.asarray(out)
    return np.asarray(_cluster(*distinct(w, h, scale), k)[0])


def kmeans_1d(values: np.ndarray, weights: np.ndarray, k: int) -> np.ndarray:
    """kmeans_rows of values in any order, float32 [n], n >= 1, with weights >= 0, float32 [n], not all zero."""
    return kmeans_rows(values[None], weights, np.ones(1, np.float32), k)


def kmeans_1d_slow(values: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, float]:
    """The readable twin: exact dynamic programming over the sorted values, O(k n**2). Returns (centroids, error)."""
    order = np.argsort(values, kind="stable")
    v, w = values[order].astype(np.float64), weights[order].astype(np.float64)
    n = v.size

    def error(i: int, j: int) -> float:
        part, weight = v[i:j], w[i:j]
        if weight.sum() == 0:
            return 0.0
        return float((weight * (part - np.average(part, weights=weight)) ** 2).sum())

    best = {(0, 0): (0.0, [0])}
    for c in range(1, k + 1):
        for j in range(n + 1):
            options = [
                (best[c - 1, i][0] + error(i, j), [*best[c - 1, i][1], j]) for i in range(j + 1) if (c - 1, i) in best
            ]
            if options:
                best[c, j] = min(options, key=lambda o: o[0])
    cost, cuts = best[k, n]
    spans = [(i, j) for i, j in pairwise(cuts) if j > i and w[i:j].sum() > 0]
    return np.array([np.average(v[i:j], weights=w[i:j]) for i, j in spans]), cost
