"""Random numbers. They follow the distributions that the format names, not the sequence that a device would draw."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.ops.base import Array, Generator, Ints, Op, pick


def random_bernoulli(*, shape: Ints, prob: float = 0.5, seed: int = -1, rng: Generator) -> Array:
    """1 with the probability `prob`, else 0."""
    return (rng.random(shape) < prob).astype(np.float32)


def random_normal(*, shape: Ints, mean: float = 0.0, stddev: float = 1.0, seed: int = -1, rng: Generator) -> Array:
    """Normal numbers."""
    return rng.standard_normal(shape, np.float32) * np.float32(stddev) + np.float32(mean)


def random_uniform(*, shape: Ints, low: float = 0.0, high: float = 1.0, seed: int = -1, rng: Generator) -> Array:
    """Numbers from `low` to below `high`; `low` where the two are equal."""
    found = rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)
    return np.minimum(found, np.nextafter(np.float32(high), np.float32(low)))  # rounding may reach `high`


def random_categorical(x: Array, *, mode: str = "logits", size: int = 1, seed: int = -1, rng: Generator) -> Array:
    """`size` indices drawn with replacement for each distribution along the last axis.

    Args:
        x: [..., k] logits, or probabilities (which need not sum to 1) in the mode "probs".
        mode: "logits" or "probs".
        size: how many to draw.
        seed: see base.py.
        rng: source of the numbers.

    Returns:
        float32 [..., size].
    """
    if mode not in ("logits", "probs"):
        raise ValueError(f"mode {mode!r}")
    weights = np.asarray(x, np.float64)
    if mode == "logits":
        weights = np.exp(weights - weights.max(axis=-1, keepdims=True))
    rows = weights.reshape(-1, weights.shape[-1]).cumsum(axis=1)
    draws = rng.random((len(rows), size)) * rows[:, -1:]
    found = [np.searchsorted(row, d, side="right") for row, d in zip(rows, draws, strict=True)]
    last = weights.shape[-1] - 1
    return np.minimum(np.array(found), last).astype(np.float32).reshape(*weights.shape[:-1], size)


OPS: dict[str, Op] = {
    "random_bernoulli": pick(random_bernoulli),
    "random_categorical": pick(random_categorical),
    "random_normal": Op(random_normal),
    "random_uniform": Op(random_uniform),
}
