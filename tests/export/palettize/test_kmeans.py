"""1-D k-means against kmeans1d (exact, in C++; coremltools carries it) and our readable twin."""

import numpy as np
import pytest
from coremltools._deps.kmeans1d import cluster
from hypothesis import example, given, settings
from hypothesis import strategies as st

from satchel.export.palettize import kmeans
from satchel.export.palettize.kmeans import kmeans_1d, kmeans_1d_slow, kmeans_rows

WITHIN = 1e-4  # of the least error


def error(values, weights, centroids):
    middle = (centroids[1:] + centroids[:-1]) / 2
    near = centroids[np.searchsorted(middle, values.astype(np.float64))]
    return float((weights * (values - near) ** 2).sum())


def exact(values, weights, k):
    values, weights = values[weights > 0], weights[weights > 0]  # kmeans1d would divide by no weight at all
    size = float(np.abs(values).max()) or 1.0
    found = cluster(values / np.float64(size), k, weights=weights.astype(np.float64)).centroids
    return np.sort(np.array(found)) * size


def check(values, weights, k):
    centroids = kmeans_1d(values, weights, k)
    assert centroids.shape == (k,)
    assert (np.diff(centroids) >= 0).all()
    spread = error(values, weights, np.array([np.average(values.astype(np.float64), weights=weights)]))
    least = error(values, weights, exact(values, weights, k))
    # Where nothing is left of the error, both answers are rounded.
    assert error(values, weights, centroids) <= least * (1 + WITHIN) + 1e-13 * spread


def spoilt(normal, position, outlier):
    values = normal.copy()
    values[position] = outlier
    return values


SHAPES = {
    "normal": lambda r, n: r.standard_normal(n),
    "student t": lambda r, n: r.standard_t(3, n),
    "cauchy": lambda r, n: r.standard_cauchy(n),
    "log-normal": lambda r, n: np.exp(3 * r.standard_normal(n)),
    "uniform": lambda r, n: r.random(n),
    "outlier": lambda r, n: spoilt(r.standard_normal(n), n // 3, 1e4),
    "outlier beyond fp32's digits": lambda r, n: spoilt(r.standard_normal(n), n // 2, -1e30),
    "bimodal": lambda r, n: r.choice([-1, 1], n) + 0.01 * r.standard_normal(n),
    "narrowly bimodal": lambda r, n: r.choice([-1, 1], n) + 1e-4 * r.standard_normal(n),
    "clumps": lambda r, n: r.standard_normal(40)[r.integers(0, 40, n)] + 0.003 * r.standard_normal(n),
    "ties": lambda r, n: np.round(20 * r.standard_normal(n)) / 20,
    "ties far from zero": lambda r, n: np.round(2 * r.standard_normal(n)) / 2 + 1000,
    "on the grid of 4-bit blocks": lambda r, n: r.integers(-8, 8, n) * r.uniform(0.5, 1.5, 8)[r.integers(0, 8, n)],
    "fp16": lambda r, n: r.standard_normal(n).astype(np.float16),
    "constant": lambda r, n: np.full(n, 3.3),
    "two values": lambda r, n: r.choice([-1.0, 2.0], n),
    "huge": lambda r, n: 1e30 * r.standard_normal(n),
    "denormal": lambda r, n: 1e-42 * r.standard_normal(n),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_as_good_as_kmeans1d(shape):
    rng = np.random.default_rng(len(shape))
    for n, k in [(1, 16), (9, 16), (300, 4), (3000, 16), (3000, 64), (kmeans.SORTED + 5000, 16)]:
        values = SHAPES[shape](rng, n).astype(np.float32)
        check(values, np.ones(n, np.float32), k)
        if n < 3000 or k == 16:
            weights = rng.chisquare(1, n).astype(np.float32) * (rng.random(n) < 0.8)
            weights[0] += 1
            check(values, weights.astype(np.float32), k)


@example([(0.0, 1.0), (1.0, 1e-21)], 2)
@given(
    st.lists(st.tuples(st.floats(-100, 100, width=32), st.floats(0, 10, width=32)), min_size=1, max_size=60),
    st.integers(1, 16),
)
@settings(max_examples=150, deadline=None)
def test_small_sets(pairs, k):
    values, weights = np.array(pairs, np.float32).T.copy()
    if weights.sum() < 1e-3:
        weights[:] = 1
    check(values, weights, k)


@given(st.integers(0, 2**32 - 1), st.floats(1, 8), st.floats(-3, 3), st.floats(-4, 1), st.sampled_from([2, 8, 16, 32]))
@settings(max_examples=40, deadline=None)
def test_mixtures_of_heavy_tails(seed, tail, apart, narrow, k):
    rng = np.random.default_rng(seed)
    values = rng.standard_t(tail, 2000)
    values[:700] = 10.0**narrow * values[:700] + 10 * apart
    check(values.astype(np.float32), rng.chisquare(1, 2000).astype(np.float32) + 1e-3, k)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_the_slow_twin(k):
    rng = np.random.default_rng(k)
    values, weights = rng.standard_t(3, 50).astype(np.float32), rng.uniform(0.01, 3, 50).astype(np.float32)
    centroids, cost = kmeans_1d_slow(values, weights, k)
    assert cost == pytest.approx(error(values, weights, exact(values, weights, k)), rel=1e-9)
    assert error(values, weights, centroids) == pytest.approx(cost, rel=1e-9)
    check(values, weights, k)


def test_rows_are_values_over_their_scales_that_weigh_its_square():
    rng = np.random.default_rng(0)
    w, h = rng.standard_t(4, (24, 1000)).astype(np.float32), rng.chisquare(1, 1000).astype(np.float32)
    scale = rng.uniform(0.5, 2, 24).astype(np.float32)
    values, weights = (w / scale[:, None]).ravel(), (h * scale[:, None] ** 2).ravel()
    assert w.size > kmeans.SORTED
    got = error(values, weights, kmeans_rows(w, h, scale, 16))
    assert got <= error(values, weights, exact(values, weights, 16)) * (1 + WITHIN)
