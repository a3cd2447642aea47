"""What a compressed language model loses, token by token, and the figures that are made of it.

Two models are compared by their difference at each token of the same text: what is hard for one is hard for the other,
so that the standard error of the difference is far smaller than either model's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from heldout import KINDS, Block

from satchel.runtime.metrics import kl, log_softmax, standard_error

Logits = Callable[[list[int]], np.ndarray]
RUN = 64
"""Tokens in a block of which standard errors are made."""
BOTH = "both"


@dataclass(frozen=True)
class Judged:
    """A model against the reference, at each token of all blocks.

    Attributes:
        kind: index into KINDS, uint8 [n].
        kl: divergence from the reference, in nats, float64 [n].
        agrees: whether both find the same token likeliest, bool [n].
        loss: -log p of the token that follows, float64 [n]; NaN at the end of a block.
    """

    kind: np.ndarray
    kl: np.ndarray
    agrees: np.ndarray
    loss: np.ndarray

    def save(self, path: Path) -> None:
        """As .npz."""
        np.savez_compressed(path, kind=self.kind, kl=self.kl, agrees=self.agrees, loss=self.loss)

    @classmethod
    def read(cls, path: Path) -> Judged:
        """What save wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(file["kind"], file["kl"], file["agrees"], file["loss"])

    def of(self, kind: str) -> Judged:
        """The tokens of one kind of text, or of both."""
        if kind == BOTH:
            return self
        at = self.kind == KINDS.index(kind)
        return Judged(self.kind[at], self.kl[at], self.agrees[at], self.loss[at])

    def figures(self) -> dict[str, float]:
        """Mean KL with its standard error, top-1 agreement, perplexity."""
        return {
            "kl": round(float(self.kl.mean()), 6), "kl_se": round(standard_error(self.kl, RUN), 6),
            "top1": round(float(self.agrees.mean()), 4),
            "perplexity": round(float(np.exp(np.nanmean(self.loss))), 3),
        }  # fmt: skip

    def beside(self, baseline: Judged) -> dict[str, float]:
        """By how much more the KL is than another model's, with the standard error of the paired difference."""
        difference = self.kl - baseline.kl
        return {"kl_more": round(float(difference.mean()), 6), "kl_more_se": round(standard_error(difference, RUN), 6)}


def by_kind(judged: Judged, baseline: Judged | None = None) -> dict[str, dict[str, float]]:
    """Kind of text, or "both" -> figures, beside a baseline's if there is one."""
    found = {}
    for kind in (*KINDS, BOTH):
        part = judged.of(kind)
        found[kind] = part.figures() | (part.beside(baseline.of(kind)) if baseline else {})
    return found


def reference_logits(logits: Logits, texts: list[Block], cache: Path | None) -> list[np.ndarray]:
    """The reference's logits of each block, float32 [length, vocab]; from a file in `cache` where they lie there."""
    key = hashlib.sha256(json.dumps([block.ids for block in texts]).encode()).hexdigest()[:12]
    path = cache / f"reference-{key}.npy" if cache else None
    if path and path.exists():
        flat = np.load(path, mmap_mode="r")
    else:
        flat = np.concatenate([logits(block.ids) for block in texts])
        if path:
            np.save(path, flat)
    ends = np.cumsum([len(block.ids) for block in texts])
    return np.split(flat, ends[:-1])


def judge(logits: Logits, wanted: list[np.ndarray], texts: list[Block]) -> Judged:
    """A model's losses.

    Args:
        logits: ids -> float32 [len(ids), vocab].
        wanted: the reference's, from reference_logits.
        texts: the blocks.
    """
    parts = [_block(logits(block.ids), want, block) for block, want in zip(texts, wanted, strict=True)]
    return Judged(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _block(got: np.ndarray, want: np.ndarray, block: Block) -> tuple[np.ndarray, ...]:
    loss = np.full(len(block.ids), np.nan)
    loss[:-1] = -log_softmax(got[:-1])[np.arange(len(block.ids) - 1), block.ids[1:]]
    kind = np.full(len(block.ids), KINDS.index(block.kind), np.uint8)
    return kind, kl(want, got), want.argmax(1) == got.argmax(1), loss
