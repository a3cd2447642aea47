"""The vision encoder's operators in ONNX; linears, norms and sums are those of the decoder (ops/onnx.py)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from satchel.export.ops.base import Weights
from satchel.export.ops.onnx import CacheInputs, OnnxOps, Tensor
from satchel.export.ops.onnx_graph import MICROSOFT, GraphBuilder
from satchel.export.vision.config import Activation, VisionConfig


class OnnxVisionOps(OnnxOps):
    """A VisionOps (encoder.py) that appends to a graph. Values are fp32 [pictures, rows, channels].

    Args:
        graph, config, weights, accuracy_level: as OnnxOps has them.
        pixels: fp32 [pictures, channels, image_size, image_size].
    """

    def __init__(
        self, graph: GraphBuilder, config: VisionConfig, weights: Weights, pixels: ir.Value, *, accuracy_level: int
    ) -> None:
        no_cache = CacheInputs((), pixels, pixels, 0)
        super().__init__(graph, config, weights, pixels, no_cache, accuracy_level=accuracy_level)  # type: ignore[arg-type]
        self._vision, self._pixels = config, pixels

    def patches(self, name: str) -> Tensor:
        """By moving axes and one product, which is what a convolution without overlap is."""
        c, graph = self._vision, self._graph
        pixels, used = self._pixels, c.grid * c.patch_size
        if used < c.image_size:  # as a convolution leaves out what is no whole patch
            starts, ends, axes = (
                graph.initializer(f"pixels.{n}", np.array(v, np.int64))
                for n, v in (("starts", [0, 0]), ("ends", [used, used]), ("axes", [2, 3]))
            )
            pixels = graph.node("Slice", "pixels.used", [pixels, starts, ends, axes])
        cut = self._shape(0, c.channels, c.grid, c.patch_size, c.grid, c.patch_size)
        parts = graph.node("Reshape", "pixels.cut", [pixels, cut])
        moved = graph.node("Transpose", "pixels.moved", [parts], {"perm": [0, 2, 4, 1, 3, 5]})
        rows = graph.node("Reshape", "pixels.rows", [moved, self._shape(0, c.grid**2, c.channels * c.patch_size**2)])
        return self.linears(rows, [name])[0]

    def placed(self, x: Tensor, name: str, first: str | None) -> Tensor:
        """The class token is added to the first row of the table, and a row of zeros goes before the patches."""
        value, table = self._value(x), self._weights.vector(name).reshape(-1, self._vision.hidden_size).copy()
        if first is not None:
            table[0] += self._weights.vector(first)
            pads = self._graph.initializer("positions.pads", np.array([0, 1, 0, 0, 0, 0], np.int64))
            value = self._graph.node("Pad", "positions.room", [value, pads])
        return self._graph.node("Add", "positions", [value, self._graph.initializer(name, table.astype(np.float32))])

    def attend(self, q: Tensor, k: Tensor, v: Tensor, name: str) -> Tensor:
        """onnxruntime's fused attention, without a mask."""
        inputs = [self._value(x) for x in (q, k, v)]
        return self._graph.node(
            "MultiHeadAttention", name, inputs, {"num_heads": self._vision.heads}, domain=MICROSOFT
        )  # fmt: skip

    def activate(self, x: Tensor, kind: Activation, name: str) -> Tensor:
        """GELU in one of three forms."""
        if kind == "quick_gelu":
            return self._graph.node("QuickGelu", name, [self._value(x)], {"alpha": 1.702}, domain=MICROSOFT)
        form = {"approximate": "tanh" if kind == "gelu_tanh" else "none"}
        return self._graph.node("Gelu", name, [self._value(x)], form)

    def without_first(self, x: Tensor) -> Tensor:
        """By a slice."""
        starts, ends, axes = (
            self._graph.initializer(f"rows.{n}", np.array([v], np.int64))
            for n, v in (("starts", 1), ("ends", self._vision.positions), ("axes", 1))
        )
        return self._graph.node("Slice", "rows.patches", [self._value(x), starts, ends, axes])

    def shuffled(self, x: Tensor, factor: int) -> Tensor:
        """By moving axes."""
        c, side = self._vision, self._vision.grid // factor
        split = self._shape(0, side, factor, side, factor * c.hidden_size)
        squares = self._graph.node("Reshape", "squares.split", [self._value(x), split])
        moved = self._graph.node("Transpose", "squares.moved", [squares], {"perm": [0, 1, 3, 2, 4]})
        return self._graph.node("Reshape", "squares", [moved, self._shape(0, side**2, factor**2 * c.hidden_size)])

    def finished(self, x: Tensor) -> ir.Value:
        """The value itself, every sum computed."""
        return self._value(x)
