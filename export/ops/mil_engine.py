"""The layout for the Neural Engine: channels first, (1, channels, 1, S), every linear a 1x1 convolution.

The engine pads the last axis to 64 bytes and has the channels on its own axis (neural-engine rules 1 and 7). Attention
goes by key/value head (rule 9): the queries of the heads that share it stand side by side on the last axis, so G query
heads cost one pair of products, and keys and values enter as plain views of the cache.
"""

from __future__ import annotations

from satchel.export.families.base import Layer
from satchel.export.families.blocks import Blocks
from satchel.export.ops.mil import MilOps
from satchel.export.ops.mil_builder import Var
from satchel.export.ops.mil_matrix import StoredMatrix

PRODUCT = "nchw,nwhr->nchr"
"""The one form of MIL's einsum; bkhc,bchq->bkhq and bqhk,bkhc->bqhc are both of it."""


class EngineOps(MilOps):
    """Values are (1, channels, 1, S); heads are (1, heads, head_dim, S)."""

    channels = 1
    head_channels = 2

    def _enter(self, x: Var) -> Var:
        return self.mb.expand_dims(x=self.mb.transpose(x=x, perm=[0, 2, 1]), axes=[2])

    def _leave(self, x: Var, name: str | None) -> Var:
        rows = self.mb.squeeze(x=x, axes=[2])
        return self.mb.transpose(x=rows, perm=[0, 2, 1], **({"name": name} if name else {}))

    def _along_channels(self, n: int) -> tuple[int, ...]:
        return (1, n, 1, 1)

    def _project(self, x: Var, matrix: StoredMatrix) -> Var:
        return self.mb.conv(x=x, weight=self.matrices.dense(matrix, (*matrix.shape, 1, 1)))

    def _table(self, x: Var) -> Var:
        return self.mb.expand_dims(x=self.mb.transpose(x=x, perm=[1, 0]), axes=[0, 1])

    def _heads(self, x: Var, count: int) -> Var:
        return self.mb.reshape(x=x, shape=[1, count, self.config.head_dim, self.call.length])

    def _cache_rows(self, heads: Var) -> Var:
        return self.mb.transpose(x=heads, perm=[0, 1, 3, 2])

    def _along_heads(self, heads: int) -> tuple[int, ...]:
        return (1, heads, self.config.head_dim, 1)

    def _over_past(self, mask: Var, group: int) -> Var:
        """(1, C, 1, 1) or (1, C, 1, G * S)."""
        whole = self.mb.reshape(x=mask, shape=[1, self.call.context, 1, mask.shape[1]])
        each = group if mask.shape[1] > 1 else 1
        return self.mb.concat(values=[whole] * each, axis=3) if each > 1 else whole

    def _attend(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var], layer: Layer) -> Var:
        masks = (self._past_masks(layer), self._new_masks(layer))
        columns = [*masks, self._group(queries, layer), *(self._by_head(x) for x in (*keys, *values))]
        heads = [self._join(self._attend_head(layer, *head), layer) for head in zip(*columns, strict=True)]
        whole = heads[0] if len(heads) == 1 else self.mb.concat(values=heads, axis=1)
        return self.mb.reshape(x=whole, shape=[1, layer.heads * self.config.head_dim, 1, self.call.length])

    def _past_masks(self, layer: Layer) -> list[Var]:
        """For each key/value head (1, C, 1, 1) or (1, C, 1, G * S)."""
        context = self.call.context
        whole = self._past_mask(layer.windowed(context), layer.group)
        return self._with_blocks(whole, layer.blocked(context), layer, new=False)

    def _new_masks(self, layer: Layer) -> list[Var | None]:
        """For each key/value head (1, S, 1, G * S); none for a token alone."""
        if self.call.length == 1:
            return [None] * layer.kv_heads
        mask = self._later(layer.group, layer.window).T
        whole = self._causal(layer, (1, mask.shape[0], 1, mask.shape[1]), mask)
        return list(self._with_blocks(whole, self._blocks_among_new(layer), layer, new=True))

    def _with_blocks(self, mask: Var, blocks: Blocks | None, layer: Layer, *, new: bool) -> list[Var]:
        """The mask for each key/value head, to which what its heads do not see of the blocks is added."""
        if not blocks:
            return [mask] * layer.kv_heads
        key = ("with blocks", blocks, layer.heads, new)
        if key not in self._masks:
            unseen = self._block_mask(blocks, layer.heads, new=new)
            columns = self.mb.reshape(x=unseen, shape=[1, unseen.shape[0], 1, layer.heads * self.call.length])
            self._masks[key] = self.mb.add(x=self._for_all_groups(mask, layer), y=columns)
        if layer.kv_heads == 1:
            return [self._masks[key]]
        return list(self.mb.split(x=self._masks[key], num_splits=layer.kv_heads, axis=3))

    def _for_all_groups(self, mask: Var, layer: Layer) -> Var:
        """(1, n, 1, 1) as it is, (1, n, 1, G * S) once for each key/value head."""
        if mask.shape[3] == 1 or layer.kv_heads == 1:
            return mask
        return self.mb.concat(values=[mask] * layer.kv_heads, axis=3)

    def _by_head(self, rows: Var) -> list[Var]:
        """[1, KV, n, D] -> for each key/value head (1, n, 1, D)."""
        return [self.mb.transpose(x=head, perm=[0, 2, 1, 3]) for head in self._split(rows, rows.shape[1])]

    def _group(self, queries: Var, layer: Layer) -> list[Var]:
        """(1, H, D, S) -> for each key/value head (1, D, 1, G * S)."""
        turned = (self.mb.transpose(x=group, perm=[0, 2, 1, 3]) for group in self._split(queries, layer.kv_heads))
        dim, columns = self.config.head_dim, layer.group * self.call.length
        return [self.mb.reshape(x=x, shape=[1, dim, 1, columns]) for x in turned]

    def _split(self, x: Var, count: int) -> list[Var]:
        """Axis 1 in so many parts."""
        return [x] if count == 1 else list(self.mb.split(x=x, num_splits=count, axis=1))

    def _attend_head(
        self,
        layer: Layer,
        past_mask: Var,
        new_mask: Var | None,
        queries: Var,
        past_keys: Var,
        new_keys: Var,
        past_values: Var,
        new_values: Var,
    ) -> Var:
        """One key/value head: queries (1, D, 1, Q), keys and values (1, n, 1, D) -> (1, Q, 1, D)."""
        context, length = self.call.context, self.call.length
        past = self.mb.add(x=self._scores(past_keys, queries), y=past_mask)
        new = self._scores(new_keys, queries)
        if new_mask is not None:
            new = self.mb.add(x=new, y=new_mask)
        weights = self.mb.softmax(x=self.mb.concat(values=[past, new], axis=1), axis=1)
        # Turned here, where it is [keys, queries], so that the values need not be: at decode they are far larger.
        turned = self.mb.transpose(x=weights, perm=[0, 3, 2, 1])
        of_past, of_new = self.mb.split(x=turned, split_sizes=[context, length], axis=3)
        return self.mb.add(
            x=self.mb.einsum(values=[of_past, past_values], equation=PRODUCT),
            y=self.mb.einsum(values=[of_new, new_values], equation=PRODUCT),
        )

    def _scores(self, keys: Var, queries: Var) -> Var:
        products = self.mb.einsum(values=[keys, queries], equation=PRODUCT)
        return self._capped(products, self.config.attention_softcap)

    def _join(self, attended: Var, layer: Layer) -> Var:
        """(1, G * S, 1, D) -> (1, G, D, S)."""
        shape = [1, layer.group, self.call.length, self.config.head_dim]
        return self.mb.transpose(x=self.mb.reshape(x=attended, shape=shape), perm=[0, 1, 3, 2])
