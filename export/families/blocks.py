"""Block-sparse attention: a token sees the last blocks of tokens, and some of those before them (Phi-3-small)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Blocks:
    """Which keys a query sees.

    Positions are counted from the first token; block b has the positions b * size .. (b + 1) * size - 1. A query in
    block q sees key block b <= q if q - b < local, or if (b + 1 + shift) is a multiple of `stride`. No token sees a
    later one, also in its own block.

    Attributes:
        size: tokens in a block.
        local: how many of the last blocks are seen, the query's own among them.
        stride: of the blocks before those, every so many is seen.
        alike: the same ones by all heads, shift 0; otherwise head h has the shift h * max(1, stride // heads).
    """

    size: int
    local: int
    stride: int
    alike: bool = False

    @property
    def reach(self) -> int:
        """Tokens that lie in local blocks wherever a query is in its own block, itself included."""
        return (self.local - 1) * self.size + 1

    def far_keys(self, heads: int, context: int) -> np.ndarray:
        """Whether a key is seen from afar, bool [heads, context]; the rows are equal where heads are alike."""
        step = 0 if self.alike else max(1, self.stride // heads)
        block = np.arange(context)[None, :] // self.size
        return np.asarray((block + 1 + step * np.arange(heads)[:, None]) % self.stride == 0)
