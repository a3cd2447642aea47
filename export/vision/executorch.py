"""The vision encoder's operators for ExecuTorch: one XNNPACK graph; linears, norms and sums are the decoder's.

Every shape is fixed: a picture a call.
"""

from __future__ import annotations

from satchel.export.ops.base import Weights
from satchel.export.ops.executorch_calls import Tensor, Value
from satchel.export.ops.executorch_graphs import GraphOps
from satchel.export.ops.executorch_tools import xnn
from satchel.export.vision.config import Activation, VisionConfig


class ExecutorchVisionOps(GraphOps):
    """A VisionOps (encoder.py) that records calls. Values are [1, rows, channels].

    Args:
        config, weights, int8_activations: as GraphOps has them.

    After a pass: `calls`, `pixels` the input, and the result's tensor by `leave(value)`.
    """

    def __init__(self, config: VisionConfig, weights: Weights, *, int8_activations: bool) -> None:
        super().__init__(config, weights, 1, int8_activations=int8_activations)
        self._vision = config
        self.pixels = Tensor((1, config.channels, config.image_size, config.image_size))

    def patches(self, name: str) -> Value:
        """By moving axes and one product, which is what a convolution without overlap is."""
        c, x = self._vision, self._id(Value(self.pixels.dims, tensor=self.pixels))
        graph, used = self._graph(), c.grid * c.patch_size
        if used < c.image_size:  # as a convolution leaves out what is no whole patch
            x = graph.cut(x, (0, 0, 0, 0), (1, c.channels, used, used))
        apart = graph.shaped(x, (c.channels, c.grid, c.patch_size, c.grid, c.patch_size))
        moved = graph.transpose(apart, (1, 3, 0, 2, 4))
        rows = graph.shaped(moved, (1, c.grid**2, c.channels * c.patch_size**2))
        return self.linears(self._value(rows), [name])[0]

    def placed(self, x: Value, name: str, first: str | None) -> Value:
        """The class token is added to the first row of the table, and a row of zeros goes before the patches."""
        table = self._vector(name).reshape(-1, self._vision.hidden_size).copy()
        number = self._id(x)
        if first is not None:
            table[0] += self._vector(first)
            number = self._graph().padded(number, (0, 1, 0))
        return self._value(self._graph().binary(xnn.XNNAdd, number, self._argument(name, lambda: table)))

    def attend(self, q: Value, k: Value, v: Value, name: str) -> Value:
        """Two products for each head, and a softmax between them."""
        c, graph = self._vision, self._graph()
        scale = self._number("vision.attention.scale", c.head_dim**-0.5)
        heads = (1, c.positions, c.heads, c.head_dim)
        queries, keys, values = (graph.shaped(self._id(x), heads) for x in (q, k, v))
        queries = graph.transpose(graph.binary(xnn.XNNMultiply, queries, scale), (0, 2, 1, 3))
        weights = graph.unary(xnn.XNNSoftmax, graph.product(queries, graph.transpose(keys, (0, 2, 3, 1))))
        attended = graph.transpose(graph.product(weights, graph.transpose(values, (0, 2, 1, 3))), (0, 2, 1, 3))
        return self._value(graph.shaped(attended, (1, c.positions, c.hidden_size)))

    def activate(self, x: Value, kind: Activation, name: str) -> Value:
        """GELU in one of three forms."""
        number = self._id(x)
        if kind == "gelu":
            return self._value(self._graph().unary(xnn.XNNGelu, number))
        if kind == "gelu_tanh":
            return self._gated_by(number, self._gelu_inner(number))
        slope = self._number("gelu.quick", 1.702)
        return self._gated_by(number, self._graph().binary(xnn.XNNMultiply, number, slope))

    def without_first(self, x: Value) -> Value:
        """By a slice."""
        c, number = self._vision, self._id(x)
        return self._value(self._graph().cut(number, (0, 1, 0), (1, c.positions - 1, c.hidden_size)))

    def shuffled(self, x: Value, factor: int) -> Value:
        """By moving axes."""
        c, side, number = self._vision, self._vision.grid // factor, self._id(x)
        graph = self._graph()
        apart = graph.shaped(number, (1, side, factor, side, factor * c.hidden_size))
        moved = graph.transpose(apart, (0, 1, 3, 2, 4))
        return self._value(graph.shaped(moved, (1, side**2, factor**2 * c.hidden_size)))
