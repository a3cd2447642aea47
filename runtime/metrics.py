"""How far one set of logits is from another. numpy only; sums in fp64. Rows are positions.

KL divergence is in nats, from the reference p to the candidate q: sum p (log p - log q), with p = softmax of the
reference's logits. Zero means that both would sample alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities float64 of logits [..., vocab]."""
    x = logits.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return np.asarray(x - np.log(np.exp(x).sum(-1, keepdims=True)))


def logsumexp(x: np.ndarray) -> np.ndarray:
    """log(sum(exp(x))) over the last axis in float64; -inf for a row of -inf."""
    x = x.astype(np.float64)
    largest = x.max(-1, keepdims=True)
    shift = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(x - shift).sum(-1)) + shift[..., 0])


def kl(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """KL divergence of each row, from full logits.

    Args:
        reference, candidate: float [n, vocab].

    Returns:
        float64 [n], >= 0.
    """
    p, q = log_softmax(reference), log_softmax(candidate)
    return _divergence(p, q)


def kl_from_top(
    top_ids: np.ndarray, top_logits: np.ndarray, rest_logsumexp: np.ndarray, candidate: np.ndarray
) -> np.ndarray:
    """KL divergence of each row over the reference's top ids and one lump of all others.

    With p_rest = 1 - sum(p over the top ids), and q alike:

        KL >= sum over top p (log p - log q) + p_rest (log p_rest - log q_rest)

    Merging outcomes never raises a KL divergence (data-processing inequality), so this is a lower bound of kl(); what
    it misses is how q spreads the rest among the others.

    Args:
        top_ids: int [n, top].
        top_logits: float [n, top], the reference's logits of these ids.
        rest_logsumexp: float [n], of the reference's other logits; -inf where there are none.
        candidate: float [n, vocab], full logits.

    Returns:
        float64 [n], >= 0.
    """
    others = candidate.astype(np.float64)
    q_top = np.take_along_axis(others, top_ids.astype(np.int64), -1)
    np.put_along_axis(others, top_ids.astype(np.int64), -np.inf, -1)
    p = np.concatenate([top_logits, rest_logsumexp[:, None]], -1)
    q = np.concatenate([q_top, logsumexp(others)[:, None]], -1)
    return _divergence(_normalized(p), _normalized(q))


def _normalized(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.astype(np.float64) - logsumexp(x)[:, None])


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of log-probabilities; an outcome with p = 0 adds nothing."""
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
    return np.asarray(np.maximum(terms.sum(-1), 0.0))


def largest_difference(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """The largest absolute difference in each row, float64 [n]."""
    return np.asarray(np.abs(reference.astype(np.float64) - candidate.astype(np.float64)).max(-1))


def sqnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Signal to quantization noise, in dB: 10 log10(sum r^2 / sum (r - c)^2); inf where they are equal."""
    r = reference.astype(np.float64)
    noise = float(np.square(r - candidate.astype(np.float64)).sum())
    return float("inf") if noise == 0 else float(10 * np.log10(np.square(r).sum() / noise))


def cosine(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Cosine of the angle between two arrays, taken as vectors; 1 where both are zero."""
    r, c = reference.astype(np.float64).ravel(), candidate.astype(np.float64).ravel()
    norm = float(np.linalg.norm(r) * np.linalg.norm(c))
    return float(r @ c) / norm if norm else 1.0


def near_ties(gap: np.ndarray, tolerance: float) -> np.ndarray:
    """Where the reference itself hardly prefers its best id: bool [n] of its gap between best and second logit."""
    return np.asarray(gap < tolerance)


def standard_error(values: np.ndarray, block: int) -> float:
    """Standard error of the mean, from the means of consecutive blocks.

    Neighbouring positions of a text are alike, so single ones would make the error look too small. A last, shorter
    block is left out. NaN with fewer than two blocks.

    Args:
        values: float [n].
        block: positions in a block.
    """
    blocks = len(values) // block
    if blocks < 2:
        return float("nan")
    means = values[: blocks * block].reshape(blocks, block).mean(-1)
    return float(means.std(ddof=1) / np.sqrt(blocks))


@dataclass(frozen=True)
class Summary:
    """A distribution in three numbers."""

    mean: float
    p99: float
    largest: float

    @classmethod
    def of(cls, values: np.ndarray) -> Summary:
        """Of float [n]; the percentile interpolates linearly."""
        return cls(float(values.mean()), float(np.percentile(values, 99)), float(values.max()))

    def to_json(self) -> dict[str, float]:
        """As a JSON object."""
        return asdict(self)
