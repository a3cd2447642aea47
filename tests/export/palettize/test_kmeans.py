"""1-D k-means against exact dynamic programming (our readable twin) and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from satchel.export.palettize.kmeans import kmeans_1d, kmeans_1d_slow


def error(values, weights, centroids):
    distance = (values.astype(np.float64)[:, None] - centroids[None, :]) ** 2
    return float((weights * distance.min(axis=1)).sum())


@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_equals_the_slow_twin(k):
    rng = np.random.default_rng(k)
    values = rng.standard_t(3, 70).astype(np.float32)
    weights = rng.uniform(0.01, 3, 70).astype(np.float32)
    centroids, cost = kmeans_1d_slow(values, weights, k)
    assert error(values, weights, centroids) == pytest.approx(cost, rel=1e-9)
    assert error(values, weights, kmeans_1d(values, weights, k)) <= cost * (1 + 1e-4) + 1e-12


def test_no_worse_than_scikit_learn():
    rng = np.random.default_rng(0)
    values = rng.standard_t(4, 20000).astype(np.float32)
    weights = rng.chisquare(1, 20000).astype(np.float32)
    start = np.quantile(values, (np.arange(16) + 0.5) / 16)[:, None]
    theirs = KMeans(16, init=start, n_init=1, max_iter=300).fit(values[:, None], sample_weight=weights)
    ours = error(values, weights, kmeans_1d(values, weights, 16))
    assert ours <= theirs.inertia_ * 1.001


@pytest.mark.parametrize(
    "values",
    [
        np.full(50, 3.25, np.float32),
        np.array([-1, 1] * 20, np.float32),
        np.concatenate([np.zeros(40), [1e4, -1e4]]).astype(np.float32),
        np.float32([7]),
        (np.arange(60) % 6).astype(np.float32) + 1000,
    ],
    ids=["constant", "two values", "heavy tails", "one value", "ties far from zero"],
)
def test_few_distinct_values_are_met_exactly(values):
    centroids = kmeans_1d(values, np.ones(values.size, np.float32), 16)
    assert centroids.shape == (16,)
    assert (np.diff(centroids) >= 0).all()
    scale = float(np.abs(values).max()) ** 2 * values.size
    assert error(values, np.ones(values.size), centroids) <= 1e-12 * scale


@given(
    st.lists(st.tuples(st.floats(-100, 100, width=32), st.floats(0, 10, width=32)), min_size=1, max_size=40),
    st.integers(1, 8),
)
@settings(max_examples=60, deadline=None)
def test_never_worse_than_one_cluster_and_never_better_than_exact(pairs, k):
    values, weights = np.array(pairs, np.float32).T.copy()
    if weights.sum() == 0:
        weights[:] = 1
    got = error(values, weights, kmeans_1d(values, weights, k))
    _, best = kmeans_1d_slow(values, weights, min(k, values.size))
    mean = np.average(values.astype(np.float64), weights=weights)
    spread = float((weights * (values - mean) ** 2).sum())
    assert best - 1e-6 * (spread + 1) <= got <= spread * (1 + 1e-6) + 1e-6
