"""The vision encoder's operators in MIL, in both layouts; linears, norms and sums are the decoder's (ops/mil.py).

Quick GELU is MIL's gelu in its sigmoid form. Attention goes by head where channels come first, as the decoder's does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from satchel.export.ops.base import Weights
from satchel.export.ops.mil import Call, MilOps, mil_name
from satchel.export.ops.mil_builder import Var
from satchel.export.ops.mil_engine import PRODUCT, EngineOps
from satchel.export.ops.mil_matrix import MatrixStore
from satchel.export.ops.mil_plain import PlainOps
from satchel.export.vision.config import Activation, VisionConfig

PIXELS, FEATURES = "pixelValues", "imageFeatures"
MODES = {"quick_gelu": "SIGMOID_APPROXIMATION", "gelu": "EXACT", "gelu_tanh": "TANH_APPROXIMATION"}


class SeeingOps(MilOps):
    """What both layouts share."""

    def __init__(self, config: VisionConfig, weights: Weights, matrices: MatrixStore, inputs: dict[str, Var]) -> None:
        call = Call(config.positions, 0, "io", "slice_update", head_parts=1, shared_head=False)
        super().__init__(config, weights, matrices, call, inputs)  # type: ignore[arg-type]
        self._vision = config

    def patches(self, name: str) -> Var:
        """A convolution without overlap, and its result as rows."""
        c = self._vision
        matrix = self._stored(name)
        weight = self.matrices.dense(matrix, (matrix.shape[0], c.channels, c.patch_size, c.patch_size))
        x = self.mb.conv(x=self.inputs[PIXELS], weight=weight, strides=[c.patch_size, c.patch_size])
        x = self._as_rows(x)
        if matrix.scaled:
            x = self.mb.mul(x=x, y=self.matrices.scale(matrix, self._along_channels(matrix.shape[0])))
        bias = f"{name}.bias"
        return self.mb.add(x=x, y=self._vector(bias)) if self.weights.has(bias) else x

    @abstractmethod
    def _as_rows(self, x: Var) -> Var:
        """(1, channels, grid, grid) as rows of this layout."""

    @abstractmethod
    def _table_of(self, name: str) -> Var:
        """A table [rows, hidden], to be added to as many rows."""

    def placed(self, x: Var, name: str, first: str | None) -> Var:
        """The class token, then the table."""
        if first is not None:
            rows_axis = {1: 3, 2: 1}[self.channels]
            shape = self._along_channels(self._vision.hidden_size)
            shape = shape if len(shape) == len(x.shape) else (1, 1, *shape)
            token = self._floats(mil_name(first), lambda: self.weights.vector(first), shape)
            x = self.mb.concat(values=[token, x], axis=rows_axis)
        return self.mb.add(x=x, y=self._table_of(name))

    def _laid_out(self, name: str, turn: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]) -> Var:
        width = self._vision.hidden_size
        return self._floats(mil_name(name), lambda: turn(self.weights.vector(name).reshape(-1, width)), shape)

    @abstractmethod
    def attend(self, q: Var, k: Var, v: Var, name: str) -> Var:
        """Attention of every row to every row."""

    @abstractmethod
    def without_first(self, x: Var) -> Var:
        """All rows but the first."""

    @abstractmethod
    def shuffled(self, x: Var, factor: int) -> Var:
        """Squares of patches as one row."""

    def activate(self, x: Var, kind: Activation, name: str) -> Var:
        """GELU in one of three forms."""
        return self.mb.gelu(x=x, mode=MODES[kind])

    def finished(self, x: Var) -> Var:
        """[1, rows, channels], named."""
        return self._leave(x, FEATURES)


class PlainVisionOps(SeeingOps, PlainOps):
    """A VisionOps (encoder.py) over (1, rows, channels)."""

    def _as_rows(self, x: Var) -> Var:
        flat = self.mb.reshape(x=x, shape=[1, self._vision.hidden_size, self._vision.grid**2])
        return self.mb.transpose(x=flat, perm=[0, 2, 1])

    def _table_of(self, name: str) -> Var:
        return self._laid_out(name, lambda t: t, (1, self._vision.positions, self._vision.hidden_size))

    def attend(self, q: Var, k: Var, v: Var, name: str) -> Var:
        """Products over (1, heads, rows, head_dim)."""
        c = self._vision
        queries, keys, values = (self._heads(x, c.heads) for x in (q, k, v))
        scaled = self.mb.mul(x=queries, y=self._number(c.head_dim**-0.5))
        weights = self.mb.softmax(x=self.mb.matmul(x=scaled, y=keys, transpose_y=True), axis=3)
        joined = self.mb.transpose(x=self.mb.matmul(x=weights, y=values), perm=[0, 2, 1, 3])
        return self.mb.reshape(x=joined, shape=[1, c.positions, c.hidden_size])

    def without_first(self, x: Var) -> Var:
        """By a slice."""
        return self.mb.slice_by_size(x=x, begin=[0, 1, 0], size=[1, x.shape[1] - 1, x.shape[2]])

    def shuffled(self, x: Var, factor: int) -> Var:
        """By moving axes."""
        side, width = self._vision.grid // factor, self._vision.hidden_size
        split = self.mb.reshape(x=x, shape=[1, side, factor, side, factor * width])
        moved = self.mb.transpose(x=split, perm=[0, 1, 3, 2, 4])
        return self.mb.reshape(x=moved, shape=[1, side**2, factor**2 * width])


class EngineVisionOps(SeeingOps, EngineOps):
    """A VisionOps (encoder.py) over (1, channels, 1, rows)."""

    def _as_rows(self, x: Var) -> Var:
        return self.mb.reshape(x=x, shape=[1, self._vision.hidden_size, 1, self._vision.grid**2])

    def _table_of(self, name: str) -> Var:
        return self._laid_out(name, lambda t: t.T, (1, self._vision.hidden_size, 1, self._vision.positions))

    def attend(self, q: Var, k: Var, v: Var, name: str) -> Var:
        """Head by head: queries (1, D, 1, S), keys and values (1, S, 1, D)."""
        c = self._vision
        scaled = self.mb.mul(x=q, y=self._number(c.head_dim**-0.5))
        queries, keys, values = (self._split(x, c.heads) for x in (scaled, k, v))
        heads = [self._attend_one(*head) for head in zip(queries, keys, values, strict=True)]
        return heads[0] if len(heads) == 1 else self.mb.concat(values=heads, axis=1)

    def _attend_one(self, query: Var, key: Var, value: Var) -> Var:
        key, value = (self.mb.transpose(x=x, perm=[0, 3, 2, 1]) for x in (key, value))
        weights = self.mb.softmax(x=self.mb.einsum(values=[key, query], equation=PRODUCT), axis=1)
        turned = self.mb.transpose(x=weights, perm=[0, 3, 2, 1])
        attended = self.mb.einsum(values=[turned, value], equation=PRODUCT)
        return self.mb.transpose(x=attended, perm=[0, 3, 2, 1])

    def without_first(self, x: Var) -> Var:
        """By a slice."""
        return self.mb.slice_by_size(x=x, begin=[0, 0, 0, 1], size=[*x.shape[:3], x.shape[3] - 1])

    def shuffled(self, x: Var, factor: int) -> Var:
        """pixel_unshuffle has the channels outermost; the projector wants the places in the square there."""
        c, side = self._vision, self._vision.grid // factor
        image = self.mb.reshape(x=x, shape=[1, c.hidden_size, c.grid, c.grid])
        squares = self.mb.pixel_unshuffle(x=image, downscale_factor=np.uint32(factor))
        apart = self.mb.reshape(x=squares, shape=[1, c.hidden_size, factor**2, side**2])
        moved = self.mb.transpose(x=apart, perm=[0, 2, 1, 3])
        return self.mb.reshape(x=moved, shape=[1, factor**2 * c.hidden_size, 1, side**2])


LAYOUTS: dict[str, type[SeeingOps]] = {"channels_first": EngineVisionOps, "plain": PlainVisionOps}
