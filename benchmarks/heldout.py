"""Text that no calibration has seen: documentation and prose, the same on every machine.

The documentation is Python's own reference (`pydoc_data.topics`, part of every CPython); the prose was written for this
file. A model that was trained for a benchmark has texts of its own beside it: documentation.txt and prose.txt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np

PROSE = Path(__file__).parent / "prose.txt"
TOPICS = ("assert", "attribute-access", "calls", "class", "for", "import", "lambda", "numbers", "try", "while", "with")
KINDS = ("documentation", "prose")
WORDS = 6
"""Fewer make no sentence."""
OF_EACH, LONGEST_WORDS = 50, 30
"""Sentences of each kind that pairs are made of, and words of the longest."""


@dataclass(frozen=True)
class Block:
    """Consecutive ids of one text.

    Attributes:
        kind: of the text.
        ids: its tokens.
    """

    kind: str
    ids: list[int]


def documents(folder: Path | None = None) -> dict[str, str]:
    """Kind of text -> text; from a model's folder where it has its own."""
    if folder and all((folder / f"{kind}.txt").exists() for kind in KINDS):
        return {kind: (folder / f"{kind}.txt").read_text(encoding="utf-8") for kind in KINDS}
    return {"documentation": "\n\n".join(topics[t] for t in TOPICS), "prose": PROSE.read_text(encoding="utf-8")}


def blocks(
    encode: Callable[[str], list[int]], tokens: int, length: int = 256, folder: Path | None = None
) -> list[Block]:
    """`tokens` ids, half of each kind, in blocks of `length`.

    Args:
        encode: text -> ids.
        tokens: altogether; a multiple of 2 * length.
        length: of a block.
        folder: of a model that may have texts of its own.
    """
    out = []
    for kind, text in documents(folder).items():
        ids = encode(text)[: tokens // 2]
        out += [Block(kind, ids[i : i + length]) for i in range(0, len(ids) - length + 1, length)]
    return out


def sentences(text: str, count: int | None = None) -> list[str]:
    """The first sentences of a text, lines joined."""
    found = re.split(r"(?<=[.!?])\s+", re.sub(r"\s+", " ", text))
    return [s for s in found if len(s.split()) >= WORDS][:count]


def sentence_pairs(count: int = 200, seed: int = 0) -> list[tuple[str, str]]:
    """Half of them neighbours in their text, half drawn from both texts: so similarities are high and low.

    Args:
        count: of pairs; should there be fewer neighbours than half of it, more are drawn.
        seed: of the drawing.
    """
    each = [[s for s in sentences(text) if len(s.split()) <= LONGEST_WORDS][:OF_EACH] for text in documents().values()]
    near = [pair for part in each for pair in pairwise(part)]
    every, random = [s for part in each for s in part], np.random.Generator(np.random.PCG64(seed))
    chosen = [near[i] for i in random.permutation(len(near))[: count // 2]]
    drawn = (random.choice(len(every), 2, replace=False) for _ in range(count - len(chosen)))
    return chosen + [(every[i], every[j]) for i, j in drawn]
