"""The op set over ExecuTorch: a decoder becomes delegate calls to XNNPACK with ExecuTorch's own attention between them.

Nothing is traced. Each operation goes into the XNNPACK graph that is open; attention closes it, since the cache lives
outside. A value that a later graph needs becomes an output of the graph that made it.

After the last attention only the last token matters to a caller, so that the rest of the pass is for that token alone.
"""

from __future__ import annotations

import numpy as np

from satchel.export.families.base import DecoderConfig, Layer, Rope
from satchel.export.families.blocks import Blocks
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch_calls import Call, Delegate, Integer, Kernel, Tensor, Value, XnnDelegate
from satchel.export.ops.executorch_graphs import GraphOps
from satchel.export.ops.executorch_tools import xnn
from satchel.export.ops.xnnpack import array_blob
from satchel.export.rope import rope_tables

__all__ = ["Call", "Delegate", "EmbeddingOps", "ExecutorchOps", "Integer", "Kernel", "Tensor", "Value"]

FAR = 1e9
"""What a score falls by for each slot that its token is too far away; also one slot alone leaves a weight of 0."""


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


class EmbeddingOps(GraphOps):
    """What `decoder.embed` asks of an op set: ids, int64 [1, sequence], are `given`."""

    def __init__(self, config: DecoderConfig, weights: Weights, sequence: int) -> None:
        super().__init__(config, weights, sequence, int8_activations=False)
        self.config = config
        self.given = Tensor((1, sequence), "int64", dynamic=True)

    def embed(self, name: str) -> Value:
        """Rows of the table for the ids that are given."""
        return self._rows_of(name, self.given, self.config.hidden_size)


class ExecutorchOps(GraphOps):
    """An `OpSet` (export/ops/base.py) that records calls. Values are [1, sequence, channels].

    Args:
        config, weights: the decoder.
        context: positions of the cache.
        sequence: the longest input of one call.
        int8_activations: as GraphOps has it.
        embedded: whether the program takes rows of the embedding instead of ids.

    After a pass: `calls` in order, `given` (ids, or rows) and `start_pos` the inputs, and the result's tensor by
    `leave(value)`.
    """

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        context: int,
        sequence: int,
        *,
        int8_activations: bool = True,
        embedded: bool = False,
    ) -> None:
        super().__init__(config, weights, sequence, int8_activations=int8_activations)
        self.config = config
        rows = Tensor((1, sequence, config.hidden_size), dynamic=True)
        self.given = rows if embedded else Tensor((1, sequence), "int64", dynamic=True)
        self.start_pos = Tensor((1,), "int64")
        self._context = context
        self._ended = False
        self._position, self._end = self._places()
        self._angles = {rope: self._rotary(rope, number) for number, rope in enumerate(config.ropes())}
        self._masks: dict[tuple[int, Blocks | None], Value] = {}
        self._query_blocks: dict[int, Value] = {}
        layers = config.each_layer()
        for blocks in dict.fromkeys(found for layer in layers if (found := layer.blocked(context))):
            numbers = np.arange(context, dtype=np.float32)[:, None] // blocks.size
            self._query_blocks[blocks.size] = self._cut(f"mask.blocks.{blocks.size}", numbers, 0)
        if config.attention_softcap or self._query_blocks or any(layer.windowed(context) for layer in layers):
            self._rows = self._cut("mask.rows", np.arange(context, dtype=np.float32)[:, None], 0)

    # The program outside of XNNPACK

    def _places(self) -> tuple[Integer, Integer]:
        """Positions of the first token of the input, and of what comes after the last."""
        position, length, end = Integer(), Integer(), Integer()
        self.calls.append(Kernel("aten::_local_scalar_dense", "", (self.start_pos,), position))
        self.calls.append(Kernel("aten::sym_size", "int", (self.given, 1), length))
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

    def _mask(self, window: int, blocks: Blocks | None = None) -> Value:
        """0 where a token sees a slot of the cache, far below it elsewhere; 0 for no window.

        [sequence, context], or, of blocks, [heads, sequence, context]. A token at p sees slot s if
        |2 (p - s) - (w - 1)| <= w - 1, which is 0 <= p - s < w.
        """
        if (window, blocks) not in self._masks:
            reach = (window or self._context) - 1
            slots = self._argument(f"mask.slots.{window}", lambda: np.arange(self._context)[None, :] + reach / 2)
            rows, two, zero = self._id(self._rows), self._number("mask.two", 2), self._number("mask.zero", 0)
            far, most = self._number("mask.far", FAR), self._number(f"mask.reach.{window}", reach)
            graph = self._graph()
            distance = graph.binary(xnn.XNNMultiply, graph.binary(xnn.XNNSubtract, rows, slots), two)
            beyond = graph.binary(xnn.XNNSubtract, most, graph.unary(xnn.XNNAbs, distance))
            below = graph.binary(xnn.XNNMultiply, graph.binary(xnn.XNNMinimum, beyond, zero), far)
            if blocks:
                below = graph.binary(xnn.XNNAdd, self._unseen(blocks), below)
            self._masks[window, blocks] = self._value(below)
        return self._masks[window, blocks]

    def _unseen(self, blocks: Blocks) -> int:
        """Far below 0 where a head does not see a slot's block, [heads, sequence, context]: by how many blocks it is
        too far away, 0 for those that the head sees from afar."""
        context, key = self._context, f"mask.blocks.{blocks.size}"
        mine = self._id(self._query_blocks[blocks.size])
        theirs = self._argument(f"{key}.slots", lambda: np.arange(context)[None, :] // blocks.size)
        local, zero = self._number(f"mask.local.{blocks.local}", blocks.local - 1), self._number("mask.zero", 0)
        unseen = self._argument(
            f"{key}.unseen", lambda: FAR * (1.0 - blocks.far_keys(self.config.heads, context)[:, None, :])
        )
        graph = self._graph()
        beyond = graph.binary(xnn.XNNSubtract, local, graph.binary(xnn.XNNSubtract, mine, theirs))
        return graph.binary(xnn.XNNMultiply, unseen, graph.binary(xnn.XNNMinimum, beyond, zero))

    # The protocol

    def embed(self, name: str) -> Value:
        """Rows of the table for the ids that are given."""
        return self._rows_of(name, self.given, self.config.hidden_size)

    def head_norm(self, x: Value, name: str) -> Value:
        """The same of each head; attention takes the heads as they are then."""
        dim = self.config.head_dim
        normed = self._normed(self._heads(x), dim)
        gain = self._argument(name, lambda: self._vector(name).reshape(-1, dim))
        return self._value(self._graph().binary(xnn.XNNMultiply, normed, gain))

    def linears(self, x: Value, names: list[str]) -> list[Value]:
        """As GraphOps has it; after the last attention for the last token only."""
        return super().linears(self._narrowed(x) if self._ended else x, names)

    def attention(self, q: Value, k: Value, v: Value, layer: int) -> Value:
        """Rotary in XNNPACK, then ExecuTorch's cache update and attention."""
        config, options = self.config, self.config.layer(layer)
        window, blocks = options.windowed(self._context), options.blocked(self._context)
        by_products = bool(config.attention_softcap or blocks)
        mask = self._mask(window, blocks) if window or by_products else None
        rotated = [self._rotate(q, options.rope), self._rotate(k, options.rope)]
        queries, *new = [self.leave(t) for t in (*rotated, self._value(self._heads(v)))]
        caches = [Tensor((1, self._context, options.kv_heads, config.head_dim), lasting=True) for _ in new]
        if mask is not None:
            self.leave(mask)
        for tensor, cache in zip(new, caches, strict=True):
            self._kernel("llama::update_cache.out", (tensor, cache, self._position), Tensor((1,)))
        if by_products and mask is not None:
            attended = self._products(queries, caches, mask, options)
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

    def _products(self, queries: Tensor, caches: list[Tensor], mask: Value, layer: Layer) -> Tensor:
        """Attention by XNNPACK and over the whole cache: ExecuTorch's own caps no scores, and has one mask for all
        heads."""
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
        """activation(gate) * up, or what "gegelu" makes of both."""
        if self.config.activation == "gegelu":
            gate, up = self._clipped(gate, up)
        active, other = self._id(self.activated(gate)), self._id(up)
        return self._value(self._graph().binary(xnn.XNNMultiply, active, other))

    def _clipped(self, gate: Value, up: Value) -> tuple[Value, Value]:
        """The gate, and up + 1, each within the limit."""
        low, high = (self._number(f"gate.{n}", v * self.config.gate_limit) for n, v in (("low", -1), ("high", 1)))
        one, x, y = self._number("gate.one", 1), self._id(gate), self._id(up)
        graph = self._graph()
        y = graph.binary(xnn.XNNMaximum, graph.binary(xnn.XNNMinimum, y, high), low)
        return self._value(graph.binary(xnn.XNNMinimum, x, high)), self._value(graph.binary(xnn.XNNAdd, y, one))

    def activated(self, x: Value) -> Value:
        """All activations are x * sigmoid(u), with u = x for SiLU, and 1.702 x for the gate of "gegelu"."""
        number = inner = self._id(x)
        if self.config.activation == "gelu_tanh":
            inner = self._gelu_inner(number)
        if self.config.activation == "gegelu":
            inner = self._graph().binary(xnn.XNNMultiply, number, self._number("gate.slope", 1.702))
        return self._gated_by(number, inner)

    def add(self, x: Value, y: Value) -> Value:
        """x + y; where y is of the last token only, so is the sum."""
        return super().add(self._narrowed(x) if y.dims[1] < x.dims[1] else x, y)

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
