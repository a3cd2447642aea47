from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from satchel.runtime.errors import UsageError
from satchel.runtime.sampling import Sampler, Sampling, choose


def readable(logits, how: Sampling, u: float) -> int:
    """FORMAT.md, "Sampling", word by word."""
    order = sorted(range(len(logits)), key=lambda i: (-float(logits[i]), i))
    if how.top_k:
        order = order[: how.top_k]
    scaled = [float(logits[i]) / how.temperature for i in order]
    sums, total = [], 0.0
    for x in scaled:
        total += math.exp(x - scaled[0])
        sums.append(total)
    if how.top_p < 1:
        last = next(i for i, c in enumerate(sums) if c >= how.top_p * total)
        sums = sums[: last + 1]
    return next((order[i] for i, c in enumerate(sums) if c > u * sums[-1]), order[len(sums) - 1])


@pytest.mark.parametrize(
    "how", [Sampling(1.0), Sampling(0.5, 5), Sampling(2, 0, 0.8), Sampling(1, 7, 0.5), Sampling(1, 99)]
)
def test_agrees_with_its_readable_twin(how: Sampling):
    random = np.random.default_rng(0)
    for _ in range(300):
        logits = random.integers(-3, 4, size=20).astype(np.float32)  # many ties
        u = random.random()
        assert choose(logits, how, u) == readable(logits, how, u)


@pytest.mark.parametrize("how", [Sampling(0.7), Sampling(1.3, 6), Sampling(1, 0, 0.7), Sampling(0.9, 8, 0.6)])
def test_frequencies_are_those_of_transformers(how: Sampling):
    logits = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 16)).astype(np.float32) * 2)
    warped = TemperatureLogitsWarper(float(how.temperature))(None, logits)
    warped = TopKLogitsWarper(how.top_k)(None, warped) if how.top_k else warped
    warped = TopPLogitsWarper(how.top_p)(None, warped) if how.top_p < 1 else warped
    wanted = torch.softmax(warped, -1)[0].numpy()
    points = (np.arange(4000) + 0.5) / 4000
    got = np.bincount([choose(logits[0].numpy(), how, u) for u in points], minlength=16) / 4000
    np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_greedy_draws_nothing_and_takes_the_lowest_of_equals():
    assert Sampler(Sampling())(np.array([1, 3, 3], np.float32)) == 1


def test_a_seed_decides_and_numpy_s_pcg64_is_what_is_drawn():
    logits, how = np.zeros(1000, np.float32), Sampling(1.0)
    one, two, other = (Sampler(how, seed) for seed in (5, 5, 6))
    first = [one(logits) for _ in range(20)]
    assert first == [two(logits) for _ in range(20)] != [other(logits) for _ in range(20)]
    uniform = np.random.Generator(np.random.PCG64(5))
    assert first == [int(uniform.random() * 1000) for _ in range(20)]
    assert choose(logits, how, 0.0) == 0 and choose(logits, how, 1 - 2**-53) == 999


@pytest.mark.parametrize("wrong", [
    {"temperature": -1}, {"temperature": float("nan")}, {"temperature": float("inf")},
    {"top_k": -1}, {"top_p": 0}, {"top_p": 1.1},
])  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong: dict):
    with pytest.raises(UsageError, match="out of range"):
        Sampling(**wrong)
    with pytest.raises(UsageError, match="seed"):
        Sampler(Sampling(), -1)
