"""Logits -> the next id. FORMAT.md, "Sampling", says the algorithm step by step, for hosts in other languages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satchel.runtime.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How to choose.

    Attributes:
        temperature: divides the logits; 0 is greedy.
        top_k: the k likeliest ids only; 0 keeps all.
        top_p: the fewest ids whose probabilities sum to at least this; 1 keeps all.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise UsageError("temperature is out of range", got=self.temperature, wanted=">= 0; 0 is greedy")
        if self.top_k < 0:
            raise UsageError("top_k is out of range", got=self.top_k, wanted=">= 0; 0 keeps all ids")
        if not 0 < self.top_p <= 1:
            raise UsageError("top_p is out of range", got=self.top_p, wanted="0 < top_p <= 1; 1 keeps all ids")


class Sampler:
    """Chooses ids, one random number each.

    Args:
        how: temperature, top_k, top_p.
        seed: the same seed gives the same choices; None takes one from the system.
    """

    def __init__(self, how: Sampling, seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise UsageError("a seed is out of range", got=seed, wanted=">= 0")
        self._how = how
        self._random = np.random.Generator(np.random.PCG64(seed))

    def __call__(self, logits: np.ndarray) -> int:
        """The next id after float [vocab] logits."""
        if self._how.temperature == 0:
            return greedy(logits)
        return choose(logits, self._how, self._random.random())


def greedy(logits: np.ndarray) -> int:
    """The id of the largest logit; of equal ones the lowest."""
    return int(np.argmax(logits))


def choose(logits: np.ndarray, how: Sampling, u: float) -> int:
    """The id that the random number u in [0, 1) picks.

    Args:
        logits: float [vocab].
        how: temperature above 0.
        u: uniform.
    """
    ids = _likeliest(logits, how.top_k)
    scaled = logits[ids].astype(np.float64) / how.temperature
    sums = np.cumsum(np.exp(scaled - scaled[0]))
    if how.top_p < 1:
        sums = sums[: int(np.searchsorted(sums, how.top_p * sums[-1])) + 1]
    picked = int(np.searchsorted(sums, u * sums[-1], side="right"))
    return int(ids[min(picked, len(sums) - 1)])


def _likeliest(logits: np.ndarray, top_k: int) -> np.ndarray:
    """Ids by falling logit, equal ones by rising id: the first top_k, or all."""
    if not 0 < top_k < len(logits):
        return np.argsort(-logits, kind="stable")
    threshold = np.partition(logits, len(logits) - top_k)[len(logits) - top_k]
    candidates = np.flatnonzero(logits >= threshold)
    return candidates[np.argsort(-logits[candidates], kind="stable")][:top_k]
