"""The layout for GPU and CPU: (1, S, channels), `linear`, and attention as products over (1, heads, S, head_dim).

Queries of the heads that share a key/value head stand one under the other, (1, KV, G * S, D), so keys and values are
never repeated.
"""

from __future__ import annotations

import numpy as np

from satchel.export.families.base import Layer
from satchel.export.families.blocks import Blocks
from satchel.export.ops.mil import MilOps
from satchel.export.ops.mil_builder import Var
from satchel.export.ops.mil_matrix import StoredMatrix


class PlainOps(MilOps):
    """Values are (1, S, channels); heads are (1, heads, S, head_dim)."""

    channels = 2
    head_channels = 3

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
        return self._floats(f"zeros_{n}", lambda: np.zeros(n), (n,))

    def _table(self, x: Var) -> Var:
        return self.mb.expand_dims(x=x, axes=[0, 1])

    def _heads(self, x: Var, count: int) -> Var:
        split = self.mb.reshape(x=x, shape=[1, self.call.length, count, self.config.head_dim])
        return self.mb.transpose(x=split, perm=[0, 2, 1, 3])

    def _cache_rows(self, heads: Var) -> Var:
        return heads

    def _along_heads(self, heads: int) -> tuple[int, ...]:
        return (1, heads, 1, self.config.head_dim)

    def _over_past(self, mask: Var, group: int) -> Var:
        """(1, 1, 1, C) or (1, 1, G * S, C)."""
        whole = self.mb.reshape(x=self.mb.transpose(x=mask, perm=[1, 0]), shape=[1, 1, mask.shape[1], mask.shape[0]])
        each = group if mask.shape[1] > 1 else 1
        return self.mb.concat(values=[whole] * each, axis=2) if each > 1 else whole

    def _attend(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var], layer: Layer) -> Var:
        dim, length = self.config.head_dim, self.call.length
        grouped = self.mb.reshape(x=queries, shape=[1, layer.kv_heads, layer.group * length, dim])
        attend = self._in_one if self._fused else self._in_parts
        heads = self.mb.reshape(x=attend(grouped, keys, values, layer), shape=[1, layer.heads, length, dim])
        return self.mb.reshape(x=self.mb.transpose(x=heads, perm=[0, 2, 1, 3]), shape=[1, length, layer.heads * dim])

    def _in_parts(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var], layer: Layer) -> Var:
        past = self.mb.add(x=self._scores(queries, keys[0]), y=self._mask(layer))
        new = self._scores(queries, keys[1])
        if self.call.length > 1:
            new = self.mb.add(x=new, y=self._new_mask(layer))
        weights = self.mb.softmax(x=self.mb.concat(values=[past, new], axis=3), axis=3)
        of_past, of_new = self.mb.split(x=weights, split_sizes=[self.call.context, self.call.length], axis=3)
        return self.mb.add(x=self.mb.matmul(x=of_past, y=values[0]), y=self.mb.matmul(x=of_new, y=values[1]))

    def _scores(self, queries: Var, keys: Var) -> Var:
        return self._capped(self.mb.matmul(x=queries, y=keys, transpose_y=True), self.config.attention_softcap)

    def _in_one(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var], layer: Layer) -> Var:
        return self.mb.scaled_dot_product_attention(
            query=queries,
            key=self.mb.concat(values=list(keys), axis=2),
            value=self.mb.concat(values=list(values), axis=2),
            attn_mask=self._whole_mask(layer),
        )

    def _mask(self, layer: Layer) -> Var:
        """[1, 1, 1, C], [1, 1, G * S, C], or of blocks [1, KV, G * S, C]."""
        context = self.call.context
        return self._with_blocks(
            self._past_mask(layer.windowed(context), layer.group), layer.blocked(context), layer, new=False
        )

    def _new_mask(self, layer: Layer) -> Var:
        """[1, 1, G * S, S], or of blocks [1, KV, G * S, S]."""
        mask = self._later(layer.group, layer.window)
        whole = self._causal(layer, (1, 1, *mask.shape), mask)
        return self._with_blocks(whole, self._blocks_among_new(layer), layer, new=True)

    def _with_blocks(self, mask: Var, blocks: Blocks | None, layer: Layer, *, new: bool) -> Var:
        if not blocks:
            return mask
        key = ("with blocks", blocks, layer.heads, new)
        if key not in self._masks:
            unseen = self.mb.transpose(x=self._block_mask(blocks, layer.heads, new=new), perm=[1, 2, 0])
            shape = [1, layer.kv_heads, layer.group * self.call.length, unseen.shape[2]]
            self._masks[key] = self.mb.add(x=mask, y=self.mb.reshape(x=unseen, shape=shape))
        return self._masks[key]

    def _whole_mask(self, layer: Layer) -> Var:
        """[1, 1, G * S, C + S], or of blocks [1, KV, G * S, C + S]."""
        context = self.call.context
        key = ("whole", layer.windowed(context), layer.blocked(context), layer.group)
        if key not in self._masks:
            past, new = self._mask(layer), self._new_mask(layer)
            shape = [max(a, b) for a, b in zip(past.shape[:3], new.shape[:3], strict=True)]
            self._masks[key] = self.mb.concat(values=[self._tiled(past, shape), self._tiled(new, shape)], axis=3)
        return self._masks[key]

    def _tiled(self, mask: Var, shape: list[int]) -> Var:
        """Repeated to the first three sizes."""
        reps = [size // own for size, own in zip(shape, mask.shape[:3], strict=True)]
        return mask if set(reps) == {1} else self.mb.tile(x=mask, reps=[*reps, 1])
