"""Random numbers: their distributions by statistical tests with fixed seeds, and when they repeat."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mil_programs import mb, outputs, save
from scipy import stats

from satchel.runtime import mil

ONE = {"x": np.zeros(1, np.float32)}
UNLIKELY = 1e-4  # a correct generator fails with this probability; the seeds are fixed, so it does always or never


def test_distributions() -> None:
    shape = [200, 100]

    def build(x: mb.Var) -> list[mb.Var]:
        return [
            mb.random_normal(shape=shape, mean=np.float32(2), stddev=np.float32(3), seed=1),
            mb.random_uniform(shape=shape, low=np.float32(-1), high=np.float32(4), seed=2),
            mb.random_bernoulli(shape=shape, prob=np.float32(0.3), seed=3),
            mb.random_normal(shape=shape, seed=4),
            mb.random_uniform(shape=shape, seed=5),
            mb.random_bernoulli(shape=shape, seed=6),
        ]

    normal, uniform, truths, standard, unit, halves = (v.ravel() for v in outputs(build, ONE))
    for values, law in (
        (normal, stats.norm(2, 3)), (uniform, stats.uniform(-1, 5)), (standard, stats.norm()), (unit, stats.uniform()),
    ):  # fmt: skip
        assert stats.kstest(values, law.cdf).pvalue > UNLIKELY
    for values, prob in ((truths, 0.3), (halves, 0.5)):
        assert set(values) == {0, 1}
        assert stats.binomtest(int(values.sum()), values.size, prob).pvalue > UNLIKELY


@pytest.mark.parametrize("mode", ["logits", "probs"])
def test_categories(mode: str) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 3, 7)).astype(np.float32)
    logits[0, 0, 2] = -np.inf if mode == "logits" else logits[0, 0, 2]
    weights = np.exp(logits) * np.array([1, 5, 0.1], np.float32)[:, None]  # need not sum to 1
    x = logits if mode == "logits" else weights
    (found,) = outputs(lambda x: mb.random_categorical(x=x, mode=mode, size=5000, seed=7), {"x": x})
    assert found.shape == (2, 3, 5000)
    for place in np.ndindex(2, 3):
        counts, likely = np.bincount(found[place].astype(int), minlength=7), weights[place].astype(np.float64)
        assert counts[likely == 0].sum() == 0
        wanted = 5000 * likely[likely > 0] / likely.sum()
        assert stats.chisquare(counts[likely > 0], wanted).pvalue > UNLIKELY
    assert outputs(lambda x: mb.random_categorical(x=x, mode=mode), {"x": x})[0].shape == (2, 3, 1)


def test_an_interval_has_its_lower_end_alone() -> None:
    low, high = np.float32(1), np.nextafter(np.float32(1), np.float32(2))

    def build(x: mb.Var) -> list[mb.Var]:
        return [mb.random_uniform(shape=[1000], low=low, high=h) for h in (high, low)]

    for found in outputs(build, ONE):
        np.testing.assert_array_equal(found, low)


def test_a_seed_repeats_and_a_shape_may_come_at_run_time(tmp_path: Path) -> None:
    def build(shape: mb.Var) -> list[mb.Var]:
        return [
            mb.random_normal(shape=shape, seed=1),
            mb.random_normal(shape=shape, seed=1),
            mb.random_normal(shape=shape),
            mb.random_uniform(shape=shape),
        ]

    program = mil.load(save(tmp_path, build, {"shape": ((2,), "int32")}))
    names = [s.name for s in program.outputs]
    inputs = {"shape": np.array([3, 4], np.int32)}
    first, second, again = (program.run(inputs, seed=s) for s in (1, 2, 1))
    assert all(first[n].shape == (3, 4) for n in names)
    np.testing.assert_array_equal(first[names[0]], first[names[1]])
    np.testing.assert_array_equal(first[names[0]], second[names[0]])
    assert not np.array_equal(first[names[2]], second[names[2]])
    for name in names:
        np.testing.assert_array_equal(first[name], again[name])
