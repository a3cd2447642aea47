"""Weighted k-means in one dimension, by a histogram and exact dynamic programming over its bins.

In one dimension the optimal clusters are intervals, so dynamic programming finds the optimum; the divide-and-conquer
form (the best split moves monotonically) costs O(k * bins * log bins). See Wang and Song, "Ckmeans.1d.dp" (The R
Journal, 2011), and Gronlund et al., "Fast Exact k-Means, k-Medians and Bregman Divergence Clustering in 1D" (2017).
Bins hold the mean of what fell into them, so the only error against the exact optimum is that no cluster border can
lie inside a bin; a few Lloyd steps on the values themselves remove most of it (fit.py does these).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _histogram_rows(
    w: np.ndarray, h: np.ndarray, scale: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """_histogram of the values w[r, c] / scale[r] with weights h[c] * scale[r]**2, without making either array."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for r in range(w.shape[0]):
        inverse = np.float32(1) / scale[r]
        for c in range(w.shape[1]):
            low = min(low, w[r, c] * inverse)
            high = max(high, w[r, c] * inverse)
    w0, w1, w2 = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    step = np.float32(bins - 1) / (high - low) if high > low else np.float32(0)
    for r in range(w.shape[0]):
        inverse = np.float32(1) / scale[r]
        square = scale[r] * scale[r]
        for c in range(w.shape[1]):
            v = w[r, c] * inverse
            b = int((v - low) * step + np.float32(0.5))
            weight = float(h[c] * square)
            w0[b] += weight
            w1[b] += weight * v
            w2[b] += weight * v * v
    return w0, w1, w2


@njit(cache=True, nogil=True)
def _histogram(values: np.ndarray, weights: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per bin: sum of weights, of weight * value, of weight * value**2 (float64 [bins])."""
    low, high = values[0], values[0]
    for v in values:
        low = min(low, v)
        high = max(high, v)
    w0, w1, w2 = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    step = (bins - 1) / (high - low) if high > low else 0.0
    for i in range(values.size):
        v = float(values[i])
        b = int((v - low) * step + 0.5)
        w = float(weights[i])
        w0[b] += w
        w1[b] += w * v
        w2[b] += w * v * v
    return w0, w1, w2


@njit(cache=True, nogil=True)
def _cost(s0: np.ndarray, s1: np.ndarray, s2: np.ndarray, i: int, j: int) -> float:
    """Weighted squared error of one cluster over the bins i..j-1, from prefix sums."""
    w = s0[j] - s0[i]
    if w <= 0.0:
        return 0.0
    m = s1[j] - s1[i]
    return max(0.0, s2[j] - s2[i] - m * m / w)


@njit(cache=True, nogil=True)
def _layer(prev: np.ndarray, s0: np.ndarray, s1: np.ndarray, s2: np.ndarray, cur: np.ndarray, arg: np.ndarray) -> None:
    """cur[j] = min over i <= j of prev[i] + cost(i, j), by divide and conquer on a stack of index ranges."""
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
        for i in range(opt_lo, min(mid, opt_hi) + 1):
            c = prev[i] + _cost(s0, s1, s2, i, mid)
            if c < best:
                best, best_i = c, i
        cur[mid] = best
        arg[mid] = best_i
        top += 1
        stack[top] = (lo, mid - 1, opt_lo, best_i)
        top += 1
        stack[top] = (mid + 1, hi, best_i, opt_hi)


@njit(cache=True, nogil=True)
def _prefix(x: np.ndarray) -> np.ndarray:
    out = np.zeros(x.size + 1)
    for i in range(x.size):
        out[i + 1] = out[i] + x[i]
    return out


@njit(cache=True, nogil=True)
def _cluster(w0: np.ndarray, w1: np.ndarray, w2: np.ndarray, k: int) -> np.ndarray:
    """Centroids of the best k intervals of bins, ascending (float64 [k])."""
    used = w0 > 0
    s0, s1, s2 = _prefix(w0[used]), _prefix(w1[used]), _prefix(w2[used])
    n = s0.size - 1
    k_used = min(k, n)
    prev = np.full(n + 1, np.inf)
    prev[0] = 0.0
    args = np.zeros((k_used, n + 1), np.int64)
    for layer in range(k_used):
        cur = np.full(n + 1, np.inf)
        _layer(prev, s0, s1, s2, cur, args[layer])
        prev = cur
    out = np.empty(k)
    j = n
    for layer in range(k_used - 1, -1, -1):
        i = args[layer, j]
        w = s0[j] - s0[i]
        out[layer] = (s1[j] - s1[i]) / w if w > 0 else (out[layer + 1] if layer + 1 < k_used else s1[n] / s0[n])
        j = i
    for layer in range(k_used, k):
        out[layer] = out[k_used - 1]
    return np.sort(out)


def kmeans_1d(values: np.ndarray, weights: np.ndarray, k: int, bins: int = 2048) -> np.ndarray:
    """The k centroids that minimise sum(weights * (values - nearest centroid)**2), over histogram bins.

    Args:
        values: float32 [n], any order, n >= 1.
        weights: float32 [n], >= 0, not all zero.
        k: number of centroids.
        bins: of the histogram; the error against the exact optimum shrinks with its square.

    Returns:
        float64 [k], ascending; the last one repeats where there are fewer distinct values than k.
    """
    return _centroids(_histogram(values, weights, bins), k)


def kmeans_rows(w: np.ndarray, h: np.ndarray, scale: np.ndarray, k: int, bins: int = 2048) -> np.ndarray:
    """kmeans_1d of the values w[r, c] / scale[r] with weights h[c] * scale[r]**2.

    Args:
        w: float32 [rows, columns].
        h: float32 [columns], >= 0, not all zero.
        scale: float32 [rows], > 0.
        k, bins: as for kmeans_1d.
    """
    return _centroids(_histogram_rows(w, h, scale, bins), k)


def _centroids(moments: tuple[np.ndarray, np.ndarray, np.ndarray], k: int) -> np.ndarray:
    """Centroids from the moments of a histogram, about their mean: far from zero the costs would cancel."""
    w0, w1, w2 = moments
    shift = w1.sum() / w0.sum()
    return np.asarray(_cluster(w0, w1 - shift * w0, w2 - 2 * shift * w1 + shift * shift * w0, k) + shift)


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
