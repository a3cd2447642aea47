"""The layout for GPU and CPU: (1, S, channels), `linear`, and attention as products over (1, heads, S, head_dim).

Queries of the heads that share a key/value head stand one under the other, (1, KV, G * S, D), so keys and values are
never repeated.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from satchel.export.ops.mil import MilOps
from satchel.export.ops.mil_builder import Var
from satchel.export.ops.mil_matrix import StoredMatrix


class PlainOps(MilOps):
    """Values are (1, S, channels); heads are (1, heads, S, head_dim)."""

    channels = 2
    head_channels = 3

    @cached_property
    def _zeros(self) -> dict[int, Var]:
        return {}

    def _enter(self, x: Var) -> Var:
        return x

    def _leave(self, x: Var, name: str | None) -> Var:
        return self.mb.identity(x=x, name=name) if name else x

    def _along_channels(self, n: int) -> tuple[int, ...]:
        return (n,)

    def _project(self, x: Var, matrix: StoredMatrix) -> Var:
        zeros = self._no_bias(matrix.shape[0])
        return self.mb.linear(x=x, weight=self.matrices.dense(matrix, matrix.shape), bias=zeros)

    def _no_bias(self, n: int) -> Var:
        """Zeros: `linear` has a bias always, and here it would come before the row scales."""
        if n not in self._zeros:
            self._zeros[n] = self._floats(f"zeros_{n}", lambda: np.zeros(n), (n,))
        return self._zeros[n]

    def _table(self, x: Var) -> Var:
        return self.mb.expand_dims(x=x, axes=[0, 1])

    def _heads(self, x: Var, count: int) -> Var:
        split = self.mb.reshape(x=x, shape=[1, self.call.length, count, self.config.head_dim])
        return self.mb.transpose(x=split, perm=[0, 2, 1, 3])

    def _cache_rows(self, heads: Var) -> Var:
        return heads

    def _past_mask_shape(self) -> tuple[int, ...]:
        return (1, 1, 1, self.call.context)

    def _attend(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var]) -> Var:
        c, length = self.config, self.call.length
        rows = self._group_size * length
        grouped = self.mb.reshape(x=queries, shape=[1, c.kv_heads, rows, c.head_dim])
        attended = self._fused(grouped, keys, values) if self.call.fused else self._in_parts(grouped, keys, values)
        heads = self.mb.reshape(x=attended, shape=[1, c.heads, length, c.head_dim])
        return self.mb.reshape(x=self.mb.transpose(x=heads, perm=[0, 2, 1, 3]), shape=[1, length, c.heads * c.head_dim])

    def _in_parts(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var]) -> Var:
        past = self.mb.add(x=self.mb.matmul(x=queries, y=keys[0], transpose_y=True), y=self._past_mask)
        new = self.mb.matmul(x=queries, y=keys[1], transpose_y=True)
        if self.call.length > 1:
            new = self.mb.add(x=new, y=self._new_mask)
        weights = self.mb.softmax(x=self.mb.concat(values=[past, new], axis=3), axis=3)
        of_past, of_new = self.mb.split(x=weights, split_sizes=[self.call.context, self.call.length], axis=3)
        return self.mb.add(x=self.mb.matmul(x=of_past, y=values[0]), y=self.mb.matmul(x=of_new, y=values[1]))

    def _fused(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var]) -> Var:
        return self.mb.scaled_dot_product_attention(
            query=queries,
            key=self.mb.concat(values=list(keys), axis=2),
            value=self.mb.concat(values=list(values), axis=2),
            attn_mask=self._whole_mask,
        )

    @cached_property
    def _new_mask(self) -> Var:
        """[1, 1, G * S, S]."""
        mask = self._later()
        return self._floats(f"causal_{self.call.length}", lambda: mask, (1, 1, *mask.shape))

    @cached_property
    def _whole_mask(self) -> Var:
        """[1, 1, G * S, C + S]."""
        past = self.mb.tile(x=self._past_mask, reps=[1, 1, self._new_mask.shape[2], 1])
        return self.mb.concat(values=[past, self._new_mask], axis=3)
