"""The op set over ExecuTorch: a decoder becomes delegate calls to XNNPACK with ExecuTorch's own attention between them.

Nothing is traced. Each operation goes into the XNNPACK graph that is open; attention closes it, since the cache lives
outside. A value that a later graph needs becomes an output of the graph that made it.

After the last attention only the last token matters to a caller, so that the rest of the pass is for that token alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from satchel.export.families.base import DecoderConfig, Layer, Rope
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch_calls import Call, Delegate, Integer, Kernel, Tensor, Value, XnnDelegate
from satchel.export.ops.executorch_tools import xnn
from satchel.export.ops.xnnpack import NO_ID, XnnGraph, array_blob, fp32_blob, int8_blobs
from satchel.export.palettize.tensors import Matrix, PalettizedTensor, PlainTensor
from satchel.export.rope import rope_tables
from satchel.runtime.errors import FormatError

__all__ = ["Call", "Delegate", "ExecutorchOps", "Integer", "Kernel", "Tensor"]

FAR = 1e9
"""What a score falls by for each slot that its token is too far away; also one slot alone leaves a weight of 0."""


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


def head_tables(rope: Rope, head_dim: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin for every position, float32 [1, length, 1, head_dim]; 1 and 0 for channels that are not rotated."""
    cos, sin = (np.concatenate((t, t), axis=1)[None, :, None, :] for t in rope_tables(rope, length))
    passed = ((0, 0), (0, 0), (0, 0), (0, head_dim - rope.rotated))
    return np.pad(cos, passed, constant_values=1), np.pad(sin, passed)


def half_turn(dim: int, rotated: int) -> np.ndarray:
    """P with P @ x = (-second half, first half) of the first `rotated` of x, and zeros behind, float32 [dim, dim]."""
    eye = np.eye(rotated // 2, dtype=np.float32)
    zero = np.zeros_like(eye)
    return np.pad(np.block([[zero, -eye], [eye, zero]]), (0, dim - rotated))


class ExecutorchOps:
    """An `OpSet` (export/ops/base.py) that records calls. Values are [1, sequence, channels].

    Args:
        config, weights: the decoder.
        context: positions of the cache.
        sequence: the longest input of one call.
        int8_activations: whether activations are rounded to int8 for each token before they meet int8 weights. It is
            what makes prefill fast; without it the result is that of the dequantized weights in fp32. Int4 weights have
            kernels for int8 activations only, floats for fp32 only.

    After a pass: `calls` in order, `tokens` and `start_pos` the inputs, and the result's tensor by `leave(value)`.
    """

    def __init__(
        self, config: DecoderConfig, weights: Weights, context: int, sequence: int, *, int8_activations: bool = True
    ) -> None:
        self.config = config
        self.calls: list[Call] = []
        self.tokens = Tensor((1, sequence), "int64", dynamic=True)
        self.start_pos = Tensor((1,), "int64")
        self._weights, self._reader = weights, LastRead(weights)
        self._context, self._sequence = context, sequence
        self._int8_activations = int8_activations
        self._ended = False
        self._open: XnnDelegate | None = None
        self._quantized: dict[int, int] = {}
        self._arguments: dict[str, Value] = {}
        self._position, self._end = self._places()
        self._angles = {rope: self._rotary(rope, number) for number, rope in enumerate(config.ropes())}
        self._masks: dict[int, Value] = {}
        layers = [config.layer(i) for i in range(config.layers)]
        if config.attention_softcap or any(layer.windowed(context) for layer in layers):
            self._rows = self._cut("mask.rows", np.arange(context, dtype=np.float32)[:, None], 0)

    # The program outside of XNNPACK

    def _kernel(self, name: str, args: tuple[Tensor | Integer | int | float | bool | None, ...], out: Tensor) -> Tensor:
        self._close()
        operator, overload = name.rsplit(".", 1)
        self.calls.append(Kernel(operator, overload, args, out))
        return out

    def _places(self) -> tuple[Integer, Integer]:
        """Positions of the first token of the input, and of what comes after the last."""
        position, length, end = Integer(), Integer(), Integer()
        self.calls.append(Kernel("aten::_local_scalar_dense", "", (self.start_pos,), position))
        self.calls.append(Kernel("aten::sym_size", "int", (self.tokens, 1), length))
        self.calls.append(Kernel("executorch_prim::add", "Scalar", (position, length), end))
        return position, end

    def _cut(self, name: str, table: np.ndarray, axis: int) -> Value:
        """What a table of all positions has for those of the input's tokens."""
        constant = Tensor(table.shape, blob=array_blob(name, np.ascontiguousarray(table)))
        dims = (*table.shape[:axis], self._sequence, *table.shape[axis + 1 :])
        rows = Tensor(dims, dynamic=True)
        self._kernel("aten::slice_copy.Tensor_out", (constant, axis, self._position, self._end, 1), rows)
        return Value(dims, tensor=rows)

    def _rotary(self, rope: Rope, number: int) -> tuple[Value, Value]:
        tables, suffix = head_tables(rope, self.config.head_dim, self._context), f".{number}" if number else ""
        cos, sin = (self._cut(f"rope.{n}{suffix}", t, 1) for n, t in zip(("cos", "sin"), tables, strict=True))
        return cos, sin

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

    def _heads(self, x: Value) -> int:
        """[1, sequence, heads, head_dim]."""
        dim = self.config.head_dim
        number = self._id(x)
        return number if len(x.dims) == 4 else self._graph().reshape(number, (1, x.dims[1], x.dims[2] // dim, dim))

    def _rotate(self, x: Value, rope: Rope | None) -> Value:
        """x * cos + P x * sin on heads."""
        heads = self._heads(x)
        if rope is None:
            return self._value(heads)
        cos, sin = (self._id(table) for table in self._angles[rope])
        graph, dim = self._graph(), self.config.head_dim
        key = f"constant.half_turn{f'.{rope.rotated}' if rope != self.config.rope else ''}"
        turn = graph.constant(array_blob(key, half_turn(dim, rope.rotated)), (dim, dim))
        turned = graph.binary(xnn.XNNMultiply, graph.fully_connected(heads, turn), sin)
        return self._value(graph.binary(xnn.XNNAdd, graph.binary(xnn.XNNMultiply, heads, cos), turned))

    def _number(self, name: str, value: float) -> int:
        return self._argument(name, lambda: np.array([value]))

    def _mask(self, window: int) -> Value:
        """0 where a token sees a slot of the cache, far below it elsewhere, [sequence, context]; 0 for no window.

        A token at p sees slot s if |2 (p - s) - (w - 1)| <= w - 1, which is 0 <= p - s < w.
        """
        if window not in self._masks:
            reach = (window or self._context) - 1
            slots = self._argument(f"mask.slots.{window}", lambda: np.arange(self._context)[None, :] + reach / 2)
            rows, two, zero = self._id(self._rows), self._number("mask.two", 2), self._number("mask.zero", 0)
            far, most = self._number("mask.far", FAR), self._number(f"mask.reach.{window}", reach)
            graph = self._graph()
            distance = graph.binary(xnn.XNNMultiply, graph.binary(xnn.XNNSubtract, rows, slots), two)
            beyond = graph.binary(xnn.XNNSubtract, most, graph.unary(xnn.XNNAbs, distance))
            below = graph.binary(xnn.XNNMultiply, graph.binary(xnn.XNNMinimum, beyond, zero), far)
            self._masks[window] = self._value(below)
        return self._masks[window]

    # The protocol

    def embed(self, name: str) -> Value:
        """Rows of the table by ExecuTorch's kernel; int8 rows are multiplied by their scales there."""
        matrix, load = self._reader.matrix(name), self._reader.loader(name)
        dims = (1, self._sequence, self.config.hidden_size)
        out = Tensor(dims, dynamic=True)
        if isinstance(matrix, PlainTensor):
            table = Tensor(matrix.shape, blob=fp32_blob(name, matrix, load))
            self._kernel("aten::embedding.out", (table, self.tokens, -1, False, False), out)
        elif isinstance(matrix, PalettizedTensor):
            codes, scale = int8_blobs(name, matrix, load)
            table, scales = Tensor(matrix.shape, "int8", codes), Tensor((matrix.shape[0],), blob=scale)
            args = (table, scales, None, -128, 127, self.tokens)
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

    def head_norm(self, x: Value, name: str) -> Value:
        """The same of each head; attention takes the heads as they are then."""
        dim = self.config.head_dim
        normed = self._normed(self._heads(x), dim)
        gain = self._argument(name, lambda: self._vector(name).reshape(-1, dim))
        return self._value(self._graph().binary(xnn.XNNMultiply, normed, gain))

    def _normed(self, x: int, width: int) -> int:
        """A mean is a fully connected node of one row, whose bias is epsilon for that of the squares."""
        graph, number = self._graph(), x
        mean_row = np.full((1, width), 1 / width, np.float32)
        row = graph.constant(array_blob(f"constant.mean.{width}", mean_row), mean_row.shape)
        epsilon = graph.constant(array_blob("constant.epsilon", np.array([self.config.norm_eps], np.float32)), (1,))
        if self.config.norm == "layer":
            number = graph.binary(xnn.XNNSubtract, number, graph.fully_connected(number, row))
        mean = graph.fully_connected(graph.binary(xnn.XNNMultiply, number, number), row, epsilon)
        return graph.binary(xnn.XNNMultiply, number, graph.unary(xnn.XNNReciprocalSquareRoot, mean))

    def linears(self, x: Value, names: list[str]) -> list[Value]:
        """One fully connected node a name; those that take int8 share the quantized input."""
        number = self._id(self._narrowed(x) if self._ended else x)
        return [self._value(self._linear(number, name, name)) for name in names]

    def attention(self, q: Value, k: Value, v: Value, layer: int) -> Value:
        """Rotary in XNNPACK, then ExecuTorch's cache update and attention."""
        config, options = self.config, self.config.layer(layer)
        window = options.windowed(self._context)
        mask = self._mask(window) if window or config.attention_softcap else None
        rotated = [self._rotate(q, options.rope), self._rotate(k, options.rope)]
        queries, *new = [self.leave(t) for t in (*rotated, self._value(self._heads(v)))]
        caches = [Tensor((1, self._context, options.kv_heads, config.head_dim), lasting=True) for _ in new]
        if mask is not None:
            self.leave(mask)
        for tensor, cache in zip(new, caches, strict=True):
            self._kernel("llama::update_cache.out", (tensor, cache, self._position), Tensor((1,)))
        if config.attention_softcap and mask is not None:
            attended = self._capped_attention(queries, caches, mask, options)
        else:
            attended = self._attended(queries, caches, mask)
        if layer == config.layers - 1:
            attended, self._ended = self._last(attended), True
        value = Value(attended.dims, tensor=attended)
        return self._value(self._join(self._id(value), value.dims))

    def _attended(self, queries: Tensor, caches: list[Tensor], mask: Value | None) -> Tensor:
        """ExecuTorch's own attention: over the past, or, with a mask, over the whole cache."""
        scale = None if self.config.attention_scale is None else float(self.config.attention_scale)
        seen = None if mask is None else self.leave(mask)
        args = (queries, *caches, self._position, seen, 0.0, mask is None, scale)
        return self._kernel("llama::custom_sdpa.out", args, Tensor(queries.dims, dynamic=True))

    def _capped_attention(self, queries: Tensor, caches: list[Tensor], mask: Value, layer: Layer) -> Tensor:
        """Attention whose scores are capped, which ExecuTorch's own is not, by XNNPACK and over the whole cache."""
        kv, dim, rows = layer.kv_heads, self.config.head_dim, layer.group * self._sequence
        keys, values = (Value(cache.dims, tensor=cache) for cache in caches)
        q, k, v, seen = (self._id(x) for x in (Value(queries.dims, tensor=queries), keys, values, mask))
        scale = self._number("attention.scale", self.config.score_scale)
        graph = self._graph()
        by_head = graph.transpose(graph.binary(xnn.XNNMultiply, q, scale), (0, 2, 1, 3))  # [1, heads, sequence, dim]
        grouped = graph.inferred(by_head, (1, kv, rows, dim))
        scores = graph.product(grouped, graph.transpose(k, (0, 2, 3, 1)))
        scores = self._capped(graph.inferred(scores, (1, layer.heads, self._sequence, self._context)),
                              "attention", self.config.attention_softcap)  # fmt: skip
        weights = graph.unary(xnn.XNNSoftmax, graph.binary(xnn.XNNAdd, scores, seen))
        grouped = graph.inferred(weights, (1, kv, rows, self._context))
        attended = graph.product(grouped, graph.transpose(v, (0, 2, 1, 3)))
        heads = graph.inferred(attended, (1, layer.heads, self._sequence, dim))
        joined = self._value(graph.transpose(heads, (0, 2, 1, 3)))
        tensor = self.leave(joined)
        self._close()
        return tensor

    def _join(self, heads: int, dims: tuple[int, ...]) -> int:
        return self._graph().reshape(heads, (1, dims[1], math.prod(dims[2:])))

    def _last(self, tensor: Tensor, before: XnnDelegate | None = None) -> Tensor:
        """Its last token, [1, 1, ...]; cut out before the delegate that is open, if there is one."""
        out = Tensor((1, 1, *tensor.dims[2:]))
        place = self.calls.index(before) if before else len(self.calls)
        self.calls.insert(place, Kernel("aten::slice_copy", "Tensor_out", (tensor, 1, -1, 2**63 - 1, 1), out))
        return out

    def _narrowed(self, x: Value) -> Value:
        """Its last token, which is all that matters after the last attention."""
        if x.dims[1] == 1:
            return x
        last = self._last(self.leave(x), before=self._open)
        return Value(last.dims, tensor=last)

    def gated(self, gate: Value, up: Value) -> Value:
        """activation(gate) * up."""
        active, other = self._id(self.activated(gate)), self._id(up)
        return self._value(self._graph().binary(xnn.XNNMultiply, active, other))

    def activated(self, x: Value) -> Value:
        """Both activations are x * sigmoid(u), with u = x for SiLU."""
        number = self._id(x)
        inner = self._gelu_inner(number) if self.config.activation == "gelu_tanh" else number
        graph = self._graph()
        return self._value(graph.binary(xnn.XNNMultiply, number, graph.unary(xnn.XNNSigmoid, inner)))

    def _gelu_inner(self, x: int) -> int:
        """0.5 (1 + tanh(z)) = sigmoid(2 z), here with 2 z = x (a + b x^2) and z as GELU's tanh form has it."""
        graph, a = self._graph(), 2 * math.sqrt(2 / math.pi)
        linear = self._argument("gelu.linear", lambda: np.array([a]))
        cubic = self._argument("gelu.cubic", lambda: np.array([a * 0.044715]))
        square = graph.binary(xnn.XNNMultiply, graph.binary(xnn.XNNMultiply, x, x), cubic)
        return graph.binary(xnn.XNNMultiply, x, graph.binary(xnn.XNNAdd, square, linear))

    def add(self, x: Value, y: Value) -> Value:
        """x + y; where y is of the last token only, so is the sum."""
        first, second = self._id(self._narrowed(x) if y.dims[1] < x.dims[1] else x), self._id(y)
        return self._value(self._graph().binary(xnn.XNNAdd, first, second))

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor."""
        number = self._number("embedding.scale", factor)
        return self._value(self._graph().binary(xnn.XNNMultiply, self._id(x), number))

    def lm_head(self, x: Value, name: str) -> Value:
        """Logits of the last token, [1, 1, vocab]."""
        logits = self._linear(self._id(x), "lm_head", name)
        return self._value(self._capped(logits, "logits", self.config.logits_softcap))

    def _capped(self, x: int, name: str, cap: float) -> int:
        """cap * tanh(x / cap); x for a cap of 0."""
        if not cap:
            return x
        graph, inverse, number = (
            self._graph(),
            self._number(f"{name}.inverse", 1 / cap),
            self._number(f"{name}.cap", cap),
        )
        inner = graph.unary(xnn.XNNTanh, graph.binary(xnn.XNNMultiply, x, inverse))
        return graph.binary(xnn.XNNMultiply, inner, number)
