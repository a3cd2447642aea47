"""What any network becomes for ExecuTorch: calls in order, most of them of XNNPACK, whose graphs are filled here.

Nothing is traced. Each operation goes into the XNNPACK graph that is open; a kernel of ExecuTorch's own closes it. A
value that a later graph needs becomes an output of the graph that made it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from satchel.export.ops.base import Weights
from satchel.export.ops.executorch_calls import Call, Integer, Kernel, Tensor, Value, XnnDelegate
from satchel.export.ops.executorch_tools import xnn
from satchel.export.ops.xnnpack import NO_ID, XnnGraph, array_blob, fp32_blob, int8_blobs
from satchel.export.palettize.tensors import Matrix, PalettizedTensor, PlainTensor
from satchel.runtime.errors import FormatError


class LastRead:
    """Matrices by name, the last one kept: codes and scales of the same matrix are written one after the other."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._last: tuple[str, Matrix] | None = None

    def matrix(self, name: str) -> Matrix:
        """As `Weights.matrix`."""
        if self._last is None or self._last[0] != name:
            self._last = None  # free it before the next is read
            self._last = (name, self._weights.matrix(name))
        return self._last[1]

    def loader(self, name: str) -> Callable[[], Matrix]:
        """Reads the matrix when called."""
        return lambda: self.matrix(name)


class Normed(Protocol):
    """What a network's configuration says of its norms."""

    @property
    def norm(self) -> Literal["rms", "layer"]:
        """Which."""
        ...

    @property
    def norm_eps(self) -> float:
        """Epsilon."""
        ...


class GraphOps:
    """Records calls. Values are [1, rows, channels].

    Args:
        config: says of which kind norms are.
        weights: of the network.
        sequence: rows of the longest input of one call; 1 where every shape is fixed.
        int8_activations: whether activations are rounded to int8 for each token before they meet int8 weights. It is
            what makes prefill fast; without it the result is that of the dequantized weights in fp32. Int4 weights have
            kernels for int8 activations only, floats for fp32 only.

    After a pass: `calls` in order, and the result's tensor by `leave(value)`.
    """

    def __init__(self, config: Normed, weights: Weights, sequence: int, *, int8_activations: bool) -> None:
        self.calls: list[Call] = []
        self._norms = config
        self._weights, self._reader = weights, LastRead(weights)
        self._sequence = sequence
        self._int8_activations = int8_activations
        self._open: XnnDelegate | None = None
        self._quantized: dict[int, int] = {}
        self._arguments: dict[str, Value] = {}

    def _kernel(self, name: str, args: tuple[Tensor | Integer | int | float | bool | None, ...], out: Tensor) -> Tensor:
        self._close()
        operator, overload = name.rsplit(".", 1)
        self.calls.append(Kernel(operator, overload, args, out))
        return out

    def leave(self, value: Value) -> Tensor:
        """The program's tensor of a value: an output of the delegate that computes it."""
        if value.tensor is None:
            assert value.graph is not None
            value.tensor = Tensor(value.dims, dynamic=self._sequence > 1 and self._sequence in value.dims[:2])
            value.graph.graph.mark_output(value.id)
            value.graph.args.append(value.tensor)
        return value.tensor

    # XNNPACK graphs

    def _graph(self) -> XnnGraph:
        if self._open is None:
            self._open = XnnDelegate()
            self.calls.append(self._open)
        return self._open.graph

    def _close(self) -> None:
        self._open = None
        self._quantized = {}

    def _id(self, value: Value) -> int:
        """The value's id in the open graph, brought in as an argument where it was made elsewhere."""
        graph = self._graph()
        assert self._open is not None
        if value.graph is self._open:
            return value.id
        tensor = self.leave(value)
        if id(tensor) not in self._open.imported:
            self._open.imported[id(tensor)] = graph.add_input(tensor.dims)
            self._open.args.append(tensor)
        return self._open.imported[id(tensor)]

    def _value(self, number: int) -> Value:
        return Value(self._graph().dims[number], self._open, number)

    def _argument(self, name: str, array: Callable[[], np.ndarray]) -> int:
        """A constant that is an argument of the call: only a fully connected node may have its constants inside."""
        if name not in self._arguments:
            held = np.ascontiguousarray(array(), dtype=np.float32)
            self._arguments[name] = Value(held.shape, tensor=Tensor(held.shape, blob=array_blob(name, held)))
        return self._id(self._arguments[name])

    def _quantize(self, x: int) -> int:
        if x not in self._quantized:
            self._quantized[x] = self._graph().quantize(x)
        return self._quantized[x]

    def _linear(self, x: int, name: str, matrix_name: str) -> int:
        graph, matrix = self._graph(), self._reader.matrix(matrix_name)
        weights = graph.filter(matrix_name, matrix, self._reader.loader(matrix_name))
        bias = f"{name}.bias" if self._weights.has(f"{name}.bias") else None
        if isinstance(matrix, PalettizedTensor) and not self._int8_activations:
            # XNNPACK's kernel for fp32 by int8 multiplies the bias by the row's scale as well: add it afterwards.
            product = graph.fully_connected(x, weights)
            return (
                graph.binary(xnn.XNNAdd, product, self._argument(bias, lambda: self._vector(bias))) if bias else product
            )
        number = NO_ID
        if bias:
            values = self._vector(bias)
            number = graph.constant(array_blob(bias, values), values.shape)
        return graph.fully_connected(x if isinstance(matrix, PlainTensor) else self._quantize(x), weights, number)

    def _vector(self, name: str) -> np.ndarray:
        return np.ascontiguousarray(self._weights.vector(name), dtype=np.float32)

    def _number(self, name: str, value: float) -> int:
        return self._argument(name, lambda: np.array([value]))

    def _rows_of(self, name: str, ids: Tensor, width: int) -> Value:
        """Rows of a table by ExecuTorch's kernel; int8 rows are multiplied by their scales there."""
        matrix, load = self._reader.matrix(name), self._reader.loader(name)
        dims = (*ids.dims, width)
        out = Tensor(dims, dynamic=True)
        if isinstance(matrix, PlainTensor):
            table = Tensor(matrix.shape, blob=fp32_blob(name, matrix, load))
            self._kernel("aten::embedding.out", (table, ids, -1, False, False), out)
        elif isinstance(matrix, PalettizedTensor):
            codes, scale = int8_blobs(name, matrix, load)
            table, scales = Tensor(matrix.shape, "int8", codes), Tensor((matrix.shape[0],), blob=scale)
            args = (table, scales, None, -128, 127, ids)
            self._kernel("quantized_decomposed::embedding_byte.out", args, out)
        else:
            raise FormatError(
                "ExecuTorch embeds int8 or fp32 tables", got=matrix.scheme(), hint="keep embed_tokens at 8 bits"
            )
        return Value(dims, tensor=out)

    def norm(self, x: Value, name: str) -> Value:
        """RMSNorm or LayerNorm."""
        scaled = self._normed(self._id(x), x.dims[-1])
        scaled = self._graph().binary(xnn.XNNMultiply, scaled, self._argument(name, lambda: self._vector(name)))
        bias = f"{name}.bias"
        if self._weights.has(bias):
            scaled = self._graph().binary(xnn.XNNAdd, scaled, self._argument(bias, lambda: self._vector(bias)))
        return self._value(scaled)

    def _normed(self, x: int, width: int) -> int:
        """A mean is a fully connected node of one row, whose bias is epsilon for that of the squares."""
        graph, number = self._graph(), x
        mean_row = np.full((1, width), 1 / width, np.float32)
        row = graph.constant(array_blob(f"constant.mean.{width}", mean_row), mean_row.shape)
        eps = np.array([self._norms.norm_eps], np.float32)
        epsilon = graph.constant(array_blob(f"constant.epsilon.{eps[0]!s}", eps), (1,))
        if self._norms.norm == "layer":
            number = graph.binary(xnn.XNNSubtract, number, graph.fully_connected(number, row))
        mean = graph.fully_connected(graph.binary(xnn.XNNMultiply, number, number), row, epsilon)
        return graph.binary(xnn.XNNMultiply, number, graph.unary(xnn.XNNReciprocalSquareRoot, mean))

    def linears(self, x: Value, names: list[str]) -> list[Value]:
        """One fully connected node a name; those that take int8 share the quantized input."""
        number = self._id(x)
        return [self._value(self._linear(number, name, name)) for name in names]

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        first, second = self._id(x), self._id(y)
        return self._value(self._graph().binary(xnn.XNNAdd, first, second))

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor."""
        number = self._number(f"scale.{factor!r}", factor)
        return self._value(self._graph().binary(xnn.XNNMultiply, self._id(x), number))

    def _gated_by(self, x: int, inner: int) -> Value:
        """x * sigmoid(inner)."""
        graph = self._graph()
        return self._value(graph.binary(xnn.XNNMultiply, x, graph.unary(xnn.XNNSigmoid, inner)))

    def _gelu_inner(self, x: int) -> int:
        """0.5 (1 + tanh(z)) = sigmoid(2 z), here with 2 z = x (a + b x^2) and z as GELU's tanh form has it."""
        graph, a = self._graph(), 2 * math.sqrt(2 / math.pi)
        linear = self._argument("gelu.linear", lambda: np.array([a]))
        cubic = self._argument("gelu.cubic", lambda: np.array([a * 0.044715]))
        square = graph.binary(xnn.XNNMultiply, graph.binary(xnn.XNNMultiply, x, x), cubic)
        return graph.binary(xnn.XNNMultiply, x, graph.binary(xnn.XNNAdd, square, linear))

    def _join(self, heads: int, dims: tuple[int, ...]) -> int:
        return self._graph().reshape(heads, (1, dims[1], math.prod(dims[2:])))
