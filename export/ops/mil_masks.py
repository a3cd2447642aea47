"""Constants of a MIL function, and the masks of attention: what a call's tokens do not see.

The mask of the past follows from the position (slot < position; with a window of W tokens also slot > token - W); that
of the new tokens is a constant, but for blocks, whose borders lie elsewhere in each call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from satchel.export.families.base import Layer
from satchel.export.families.blocks import Blocks
from satchel.export.ops.mil_builder import Emitter, Var, mb
from satchel.export.ops.mil_call import Call
from satchel.export.ops.mil_matrix import MatrixStore

MASKED = -1e4


class MaskOps(ABC):
    """What MilOps rests on; its attributes are set there."""

    call: Call
    dtype: type
    inputs: dict[str, Var]
    matrices: MatrixStore
    mb: Emitter
    _constants: dict[str, Var]
    _masks: dict[tuple[Any, ...], Var]
    _places: Var
    _slots: Var

    @abstractmethod
    def _over_past(self, mask: Var, group: int) -> Var:
        """A mask [C, 1], or [C, S] for each query, in the shape of the scores of `group` query heads."""

    def _number(self, value: float) -> np.generic:
        number: np.generic = self.dtype(value)
        return number

    def _floats(self, key: str, make: Callable[[], np.ndarray], shape: tuple[int, ...]) -> Var:
        """A float const, one in this function, whose numbers all functions share."""
        if key not in self._constants:
            if key not in self.matrices.store:
                self.matrices.store.put(key, make().astype(self.dtype))
            self._constants[key] = self.matrices.store.const(key, shape, self.dtype, name=key)
        return self._constants[key]

    def _integers(self, values: np.ndarray) -> Var:
        """An int32 const; before iOS18 these cannot lie in the weight file."""
        values = values.astype(np.int32)
        if not self.matrices.blockwise:
            return mb.const(val=values)
        key = f"int32_{values.size}_from_{values[0]}"
        if key not in self.matrices.store:
            self.matrices.store.put(key, values)
        return self.matrices.store.const(key, values.shape, np.int32)

    def _token_places(self) -> Var:
        """int32 [S]: the slots of this call's tokens."""
        if self.call.length == 1:
            return self.inputs["position"]
        return self.mb.add(x=self._integers(np.arange(self.call.length)), y=self.inputs["position"])

    def _past_mask(self, window: int, group: int) -> Var:
        """0 for slots that a token sees, MASKED for those at or after position, or before its window."""
        key = ("past", window, group if window else 0)
        if key not in self._masks:
            slots = self.mb.reshape(x=self._slots, shape=[self.call.context, 1])
            unseen = self.mb.greater_equal(x=slots, y=self.inputs["position"])
            if window:
                places = self.mb.reshape(x=self._places, shape=[1, self.call.length])
                before = self.mb.less_equal(x=slots, y=self.mb.sub(x=places, y=np.int32(window)))
                unseen = self.mb.logical_or(x=unseen, y=before)
            mask = self.mb.mul(x=self.mb.cast(x=unseen, dtype=self._dtype_name()), y=self._number(MASKED))
            self._masks[key] = self._over_past(mask, group)
        return self._masks[key]

    def _block_mask(self, blocks: Blocks, heads: int, *, new: bool) -> Var:
        """MASKED where a head does not see a block, 0 elsewhere, [keys, heads, S].

        The keys are this call's own tokens if `new`, else all slots of the cache. Numbers of blocks are looked up in a
        table and compared as floats, which hold them exactly.
        """
        key = ("blocks", blocks, heads, new)
        if key not in self._masks:
            context, length = self.call.context, self.call.length
            name = f"blocks_of_{blocks.size}_in_{context}"
            table = self._floats(name, lambda: np.arange(context) // blocks.size, (context,))
            mine = self.mb.gather(x=table, indices=self._places, axis=0)
            of_keys = self.mb.reshape(x=mine if new else table, shape=[length if new else context, 1])
            distance = self.mb.sub(x=self.mb.reshape(x=mine, shape=[1, length]), y=of_keys)
            far = self.mb.greater_equal(x=distance, y=self._number(blocks.local))
            far = self.mb.mul(x=self.mb.cast(x=far, dtype=self._dtype_name()), y=self._number(MASKED))
            name = f"block_unseen_{blocks.size}_{blocks.stride}_{1 if blocks.alike else heads}"
            unseen = self._floats(name, lambda: 1.0 - blocks.far_keys(heads, context).T, (context, heads))
            unseen = self.mb.gather(x=unseen, indices=self._places, axis=0) if new else unseen
            far, unseen = self.mb.expand_dims(x=far, axes=[1]), self.mb.expand_dims(x=unseen, axes=[2])
            self._masks[key] = self.mb.mul(x=far, y=unseen)
        return self._masks[key]

    def _blocks_among_new(self, layer: Layer) -> Blocks | None:
        """The blocks, if this call's own tokens may be too far from each other."""
        return layer.blocks if layer.blocks and layer.blocks.reach < self.call.length else None

    def _dtype_name(self) -> str:
        return "fp16" if self.dtype is np.float16 else "fp32"

    def _later(self, group: int, window: int) -> np.ndarray:
        """MASKED where a query would see a later token of this call, or one before its window.

        [queries (`group` heads, S each), S].
        """
        length = self.call.length
        token, key = (np.arange(group * length) % length)[:, None], np.arange(length)[None, :]
        return np.where((key > token) | ((window > 0) & (key <= token - window)), MASKED, 0.0)

    def _causal(self, layer: Layer, shape: tuple[int, ...], mask: np.ndarray) -> Var:
        """The mask of this call's own tokens as a constant."""
        bound = f"_{layer.window}" if 0 < layer.window < self.call.length else ""
        return self._floats(f"causal_{self.call.length}_{layer.group}{bound}", lambda: mask, shape)
