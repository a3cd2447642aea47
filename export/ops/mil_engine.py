"""The layout for the Neural Engine: channels first, (1, channels, 1, S), every linear a 1x1 convolution.

The engine pads the last axis to 64 bytes and has the channels on its own axis (neural-engine rules 1 and 7). Attention
goes by key/value head (rule 9): the queries of the heads that share it stand side by side on the last axis, so G query
heads cost one pair of products, and keys and values enter as plain views of the cache.
"""

from __future__ import annotations

from functools import cached_property

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

    def _past_mask_shape(self) -> tuple[int, ...]:
        return (1, self.call.context, 1, 1)

    def _attend(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var]) -> Var:
        columns = [self._group(queries), *(self._by_head(x) for x in (*keys, *values))]
        heads = [self._join(self._attend_head(*head)) for head in zip(*columns, strict=True)]
        whole = heads[0] if len(heads) == 1 else self.mb.concat(values=heads, axis=1)
        return self.mb.reshape(x=whole, shape=[1, self.config.heads * self.config.head_dim, 1, self.call.length])

    @cached_property
    def _new_mask(self) -> Var:
        """(1, S, 1, G * S)."""
        mask = self._later().T
        return self._floats(f"causal_{self.call.length}", lambda: mask, (1, mask.shape[0], 1, mask.shape[1]))

    def _by_head(self, rows: Var) -> list[Var]:
        """[1, KV, n, D] -> for each key/value head (1, n, 1, D)."""
        return [self.mb.transpose(x=head, perm=[0, 2, 1, 3]) for head in self._split(rows)]

    def _group(self, queries: Var) -> list[Var]:
        """(1, H, D, S) -> for each key/value head (1, D, 1, G * S)."""
        turned = (self.mb.transpose(x=group, perm=[0, 2, 1, 3]) for group in self._split(queries))
        dim, columns = self.config.head_dim, self._group_size * self.call.length
        return [self.mb.reshape(x=x, shape=[1, dim, 1, columns]) for x in turned]

    def _split(self, x: Var) -> list[Var]:
        """Axis 1 in a part for each key/value head."""
        count = self.config.kv_heads
        return [x] if count == 1 else list(self.mb.split(x=x, num_splits=count, axis=1))

    def _attend_head(self, queries: Var, past_keys: Var, new_keys: Var, past_values: Var, new_values: Var) -> Var:
        """One key/value head: queries (1, D, 1, Q), keys and values (1, n, 1, D) -> (1, Q, 1, D)."""
        context, length = self.call.context, self.call.length
        past = self.mb.add(x=self.mb.einsum(values=[past_keys, queries], equation=PRODUCT), y=self._past_mask)
        new = self.mb.einsum(values=[new_keys, queries], equation=PRODUCT)
        if length > 1:
            new = self.mb.add(x=new, y=self._new_mask)
        weights = self.mb.softmax(x=self.mb.concat(values=[past, new], axis=1), axis=1)
        # Turned here, where it is [keys, queries], so that the values need not be: at decode they are far larger.
        turned = self.mb.transpose(x=weights, perm=[0, 3, 2, 1])
        of_past, of_new = self.mb.split(x=turned, split_sizes=[context, length], axis=3)
        return self.mb.add(
            x=self.mb.einsum(values=[of_past, past_values], equation=PRODUCT),
            y=self.mb.einsum(values=[of_new, new_values], equation=PRODUCT),
        )

    def _join(self, attended: Var) -> Var:
        """(1, G * S, 1, D) -> (1, G, D, S)."""
        shape = [1, self._group_size, self.call.length, self.config.head_dim]
        return self.mb.transpose(x=self.mb.reshape(x=attended, shape=shape), perm=[0, 1, 3, 2])
