"""Text that no calibration has seen: documentation and prose, the same on every machine.

The documentation is Python's own reference (`pydoc_data.topics`, part of every CPython); the prose was written for this
file.
"""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

PROSE = Path(__file__).parent / "prose.txt"
TOPICS = ("assert", "attribute-access", "calls", "class", "for", "import", "lambda", "numbers", "try", "while", "with")


def documents() -> dict[str, str]:
    """Kind of text -> text."""
    return {"documentation": "\n\n".join(topics[t] for t in TOPICS), "prose": PROSE.read_text(encoding="utf-8")}


def blocks(encode: object, tokens: int, length: int = 256) -> list[list[int]]:
    """`tokens` ids, half of each kind, in blocks of `length`.

    Args:
        encode: text -> ids.
        tokens: altogether; a multiple of 2 * length.
        length: of a block.
    """
    out: list[list[int]] = []
    for text in documents().values():
        ids = encode(text)[: tokens // 2]  # type: ignore[operator]
        out += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    return out
