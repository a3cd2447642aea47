"""The op set for Core ML: MIL ops, built one by one. What both layouts share; see mil_engine.py and mil_plain.py.

Attention reads the cache as it was before the call and adds this call's keys and values apart from it:
softmax([q * K_past + mask, q * K_new + causal]) applied to [V_past, V_new]. So the cache is read once at the start and
written once at the end, for all layers together, and with states exactly one write_state a state is in the program;
the same graph serves a cache that goes through inputs and outputs. The mask of the past follows from the position
(slot < position; with a window of W tokens also slot > token - W), and that of the new tokens is a constant, so neither
is an input. Where layers differ in their key/value heads, the cache has room for the most of any.

Four forms are chosen for fp16, which is all that the Neural Engine has: a mask of -1e4 and never -inf (neural-engine
rule 8); norms that divide by the row's largest |x| before they sum or square, since SmolLM2's residual of 24,900
squares past 65504; queries that are scaled before they meet the keys, since Phi-2's scores are past it otherwise; and
silu as 0.5x(1 + tanh(x/2)), since the engine's own is imprecise near 0 and may go through fp32 (rule 27).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace

import numpy as np

from satchel.export.families.base import DecoderConfig, Layer, Rope
from satchel.export.ops.base import Weights
from satchel.export.ops.mil_builder import Emitter, Var
from satchel.export.ops.mil_call import Angles, Call, Heads, mil_name
from satchel.export.ops.mil_masks import MaskOps
from satchel.export.ops.mil_matrix import MatrixStore, StoredMatrix
from satchel.export.rope import rope_tables

__all__ = ["Call", "MilOps", "mil_name"]

SMALLEST_PEAK = 1e-4
"""The RMSNorm divides by at least this, so that a row of zeros stays one."""


class MilOps(MaskOps):
    """The op set, inside one MIL function.

    Args:
        config: shape of the decoder.
        weights: where matrices and vectors are read, each once for all functions.
        matrices: where they are stored.
        call: what is particular to this function.
        inputs: the function's inputs and states by name.
    """

    channels: int
    """The axis of the channels in the residual stream."""
    head_channels: int
    """The axis of a head's channels in queries, keys and values."""

    def __init__(
        self, config: DecoderConfig, weights: Weights, matrices: MatrixStore, call: Call, inputs: dict[str, Var]
    ) -> None:
        self.config = config
        self.weights = weights
        self.matrices = matrices
        self.call = call
        self.inputs = inputs
        self.dtype = matrices.dtype
        self.mb = Emitter()
        self._constants = {}
        if "position" in inputs:
            self._prepare_attention(call)

    def _prepare_attention(self, call: Call) -> None:
        """What all layers share; a function that only looks up the embedding has none."""
        self._past_keys, self._past_values = self._read("keyCache"), self._read("valueCache")
        self._new_keys: list[Var] = []
        self._new_values: list[Var] = []
        self._slots = self._integers(np.arange(call.context))
        self._places = self._token_places()
        self._fused = call.fused and not self.config.attention_softcap
        # Queries carry the scale of the scores; the fused attention has 1 / sqrt(head_dim) inside.
        self._query_scale = self.config.score_scale * (self.config.head_dim**0.5 if self._fused else 1)
        self._tables: dict[tuple[Rope, bool], Angles] = {}
        self._masks = {}

    # --- what a layout must say ---

    @abstractmethod
    def _enter(self, x: Var) -> Var:
        """[1, S, hidden] -> the residual stream in this layout."""

    @abstractmethod
    def _leave(self, x: Var, name: str | None) -> Var:
        """n channels in this layout -> [1, S, n], the op named if a name is given."""

    @abstractmethod
    def _along_channels(self, n: int) -> tuple[int, ...]:
        """The shape in which n numbers broadcast over the residual stream's channels."""

    @abstractmethod
    def _project(self, x: Var, matrix: StoredMatrix) -> Var:
        """x times the matrix, without its row scales."""

    @abstractmethod
    def _table(self, x: Var) -> Var:
        """Rotary table [S, head_dim] -> a shape that broadcasts over heads."""

    @abstractmethod
    def _heads(self, x: Var, count: int) -> Var:
        """The channels split into `count` heads; their channels on axis `head_channels`."""

    @abstractmethod
    def _cache_rows(self, heads: Var) -> Var:
        """Heads -> [1, KV, S, head_dim], as the cache holds them."""

    @abstractmethod
    def _along_heads(self, heads: int) -> tuple[int, ...]:
        """The shape in which head_dim numbers for each of `heads` heads, or for all (1), broadcast over heads."""

    @abstractmethod
    def _attend(self, queries: Var, keys: tuple[Var, Var], values: tuple[Var, Var], layer: Layer) -> Var:
        """Softmax attention over (past [1, KV, C, D], new [1, KV, S, D]); heads joined as channels."""

    # --- the protocol ---

    def embed(self, name: str) -> Var:
        """Rows of the embedding for inputIds, each times its row's scale."""
        stored = self._stored(name)
        rows, columns = stored.shape
        x = self.mb.gather(x=self.matrices.dense(stored, (rows, columns)), indices=self.inputs["inputIds"], axis=0)
        if stored.scaled:
            scales = self.mb.gather(x=self.matrices.scale(stored, (rows, 1)), indices=self.inputs["inputIds"], axis=0)
            x = self.mb.mul(x=x, y=scales)
        return self._enter(x)

    def entered(self, rows: Var) -> Var:
        """Rows of the embedding [1, S, channels] in the layout of the program's inside."""
        return self._enter(rows)

    def norm(self, x: Var, name: str) -> Var:
        """The norm of x / max|x|, which is that of x but for epsilon, which is divided alike."""
        scaled = self.mb.mul(x=self._normed(x, self.channels), y=self._vector(name))
        bias = f"{name}.bias"
        return self.mb.add(x=scaled, y=self._vector(bias)) if self.weights.has(bias) else scaled

    def head_norm(self, x: Var, name: str) -> Heads:
        """The same over each head's channels; attention takes the heads as they are then."""
        dim, size = self.config.head_dim, self.weights.vector(name).size
        normed = self._normed(self._heads(x, x.shape[self.channels] // dim), self.head_channels)
        gain = self._floats(mil_name(name), lambda: self.weights.vector(name), self._along_heads(size // dim))
        return Heads(self.mb.mul(x=normed, y=gain))

    def _normed(self, x: Var, axis: int) -> Var:
        peak = self.mb.reduce_max(x=self.mb.abs(x=x), axes=[axis], keep_dims=True)
        peak = self.mb.maximum(x=peak, y=self._number(SMALLEST_PEAK))
        y = self.mb.real_div(x=x, y=peak)
        if self.config.norm == "layer":
            y = self.mb.sub(x=y, y=self.mb.reduce_mean(x=y, axes=[axis], keep_dims=True))
        mean = self.mb.reduce_mean(x=self.mb.mul(x=y, y=y), axes=[axis], keep_dims=True)
        epsilon = self.mb.real_div(x=self._number(math.sqrt(self.config.norm_eps)), y=peak)
        root = self.mb.rsqrt(x=self.mb.add(x=mean, y=self.mb.mul(x=epsilon, y=epsilon)), epsilon=self._number(0))
        return self.mb.mul(x=y, y=root)

    def linears(self, x: Var, names: list[str]) -> list[Var]:
        """Each linear apart: the engine gains nothing from packing."""
        return [self._linear(x, self._stored(name), f"{name}.bias") for name in names]

    def attention(self, q: Var | Heads, k: Var | Heads, v: Var, layer: int) -> Var:
        """Keys enter the cache after rotary; the write itself comes at the end (`outputs`)."""
        options = self.config.layer(layer)
        keys = self._cache_rows(self._turned(self._as_heads(k, options.kv_heads), options.rope, queries=False))
        values = self._cache_rows(self._heads(v, options.kv_heads))
        self._new_keys.append(self._all_heads(keys))
        self._new_values.append(self._all_heads(values))
        queries = self._turned(self._as_heads(q, options.heads), options.rope, queries=True)
        past = (self._layer_of(self._past_keys, layer), self._layer_of(self._past_values, layer))
        return self._attend(queries, (past[0], keys), (past[1], values), options)

    def _as_heads(self, x: Var | Heads, count: int) -> Var:
        return x.value if isinstance(x, Heads) else self._heads(x, count)

    def _turned(self, heads: Var, rope: Rope | None, *, queries: bool) -> Var:
        """Rotated, and scaled if they are queries."""
        if rope:
            return self._rotate(heads, rope, self._angles(rope, queries))
        return self.mb.mul(x=heads, y=self._number(self._query_scale)) if queries else heads

    def gated(self, gate: Var, up: Var) -> Var:
        """activation(gate) * up, or what "gegelu" makes of both."""
        if self.config.activation != "gegelu":
            return self.mb.mul(x=self.activated(gate), y=up)
        limit = self.config.gate_limit
        gate = self.mb.minimum(x=gate, y=self._number(limit))
        up = self.mb.clip(x=up, alpha=self._number(-limit), beta=self._number(limit))
        share = self.mb.sigmoid(x=self.mb.mul(x=gate, y=self._number(1.702)))
        return self.mb.mul(x=self.mb.mul(x=gate, y=share), y=self.mb.add(x=up, y=self._number(1)))

    def activated(self, x: Var) -> Var:
        """silu or tanh-gelu."""
        if self.config.activation == "gelu_tanh":
            return self.mb.gelu(x=x, mode="TANH_APPROXIMATION")
        half = self.mb.mul(x=x, y=self._number(0.5))
        return self.mb.mul(x=half, y=self.mb.add(x=self.mb.tanh(x=half), y=self._number(1)))

    def add(self, x: Var, y: Var) -> Var:
        """The residual sum."""
        return self.mb.add(x=x, y=y)

    def scale(self, x: Var, factor: float) -> Var:
        """x * factor."""
        return self.mb.mul(x=x, y=self._number(factor))

    def lm_head(self, x: Var, name: str) -> Var:
        """Logits [1, S, vocab], from parts of consecutive rows (neural-engine rules 2 and 23)."""
        parts, cap = self._head_parts(name), self.config.logits_softcap
        if len(parts) == 1:
            return self._leave(self._capped(self._linear(x, parts[0], "lm_head.bias"), cap), "logits")
        pieces, start = [], 0
        for number, part in enumerate(parts):
            logits = self._head_bias(self._linear(x, part), number, start)
            pieces.append(self._leave(self._capped(logits, cap), None))
            start += part.shape[0]
        return self.mb.concat(values=pieces, axis=2, name="logits")

    def _head_bias(self, x: Var, part: int, start: int) -> Var:
        """The logits of one part of the head, whose first row is `start`, with its piece of the bias."""
        if not self.weights.has("lm_head.bias"):
            return x
        rows = slice(start, start + x.shape[self.channels])
        shape = self._along_channels(x.shape[self.channels])
        name = f"{mil_name('lm_head.bias')}__part{part}"
        return self.mb.add(x=x, y=self._floats(name, lambda: self.weights.vector("lm_head.bias")[rows], shape))

    def _capped(self, x: Var, cap: float) -> Var:
        """cap * tanh(x / cap); x for a cap of 0."""
        if not cap:
            return x
        return self.mb.mul(x=self.mb.tanh(x=self.mb.mul(x=x, y=self._number(1 / cap))), y=self._number(cap))

    def outputs(self, logits: Var) -> list[Var]:
        """Writes the cache, and lists the function's outputs."""
        named = self.call.cache == "io"
        keys = self.mb.concat(values=self._new_keys, axis=0, name="presentKeys" if named else "newKeys")
        values = self.mb.concat(values=self._new_values, axis=0, name="presentValues" if named else "newValues")
        if named:
            return [logits, keys, values]
        self._write("keyCache", self._past_keys, keys)
        self._write("valueCache", self._past_values, values)
        return [logits]

    # --- weights ---

    def _stored(self, name: str) -> StoredMatrix:
        return self.matrices.matrix(mil_name(name), lambda: self.weights.matrix(name))

    def _head_parts(self, name: str) -> list[StoredMatrix]:
        """The head's parts; a tied head in one piece is the embedding's own data under another name."""
        whole, tied = mil_name(name), name == "embed_tokens"
        if self.call.head_parts == 1:
            stored = self._stored(name)
            return [replace(stored, name=f"{whole}__head") if tied else stored]
        names = [f"{whole}__part{i}" for i in range(self.call.head_parts)]
        return self.matrices.parts(whole, names, lambda: self.weights.matrix(name), tied and self.call.shared_head)

    def _linear(self, x: Var, matrix: StoredMatrix, bias: str = "") -> Var:
        y = self._project(x, matrix)
        if matrix.scaled:
            y = self.mb.mul(x=y, y=self.matrices.scale(matrix, self._along_channels(matrix.shape[0])))
        return self.mb.add(x=y, y=self._vector(bias)) if bias and self.weights.has(bias) else y

    def _vector(self, name: str) -> Var:
        """A norm gain or a bias, to be broadcast over the channels."""
        size = self.weights.vector(name).size
        return self._floats(mil_name(name), lambda: self.weights.vector(name), self._along_channels(size))

    # --- rotary ---

    def _angles(self, rope: Rope, queries: bool) -> Angles:
        """cos [c, c, 1] and sin [-s, s, 0] of this call's places, so that x * cos + swap(x) * sin turns x."""
        if (rope, queries) not in self._tables:
            if queries:
                scale = self._number(self._query_scale)
                cos, sin = (self.mb.mul(x=table, y=scale) for table in self._angles(rope, queries=False))
            else:
                cos, sin = self._rotary_tables(rope)
            self._tables[rope, queries] = cos, sin
        return self._tables[rope, queries]

    def _rotary_tables(self, rope: Rope) -> Angles:
        cos, sin = (self._gathered(rope, which) for which in (0, 1))
        minus, rest = self.mb.mul(x=sin, y=self._number(-1)), self.config.head_dim - rope.rotated
        return self._table(self.mb.concat(values=[cos, cos, *self._passed(1, rest)], axis=1)), self._table(
            self.mb.concat(values=[minus, sin, *self._passed(0, rest)], axis=1)
        )

    def _passed(self, value: int, rest: int) -> list[Var]:
        """What the tables hold for the `rest` of a head's channels, not rotated, [S, rest]; none if all are."""
        if rest == 0:
            return []
        shape = (self.call.length, rest)
        return [self._floats(f"passed__{value}_{shape[0]}_{rest}", lambda: np.full(shape, value, np.float32), shape)]

    def _gathered(self, rope: Rope, which: int) -> Var:
        """cos (0) or sin (1) of the angles of this call's places, [S, rotated / 2]."""
        shape, name = (self.call.context, len(rope.inv_freq)), ("cos", "sin")[which]
        number = self.config.ropes().index(rope)  # which of the model's, whatever layers this function has
        key = f"rotary__{name}" + (f"__{number}" if number else "")
        table = self._floats(key, lambda: rope_tables(rope, self.call.context)[which], shape)
        return self.mb.gather(x=table, indices=self._places, axis=0)

    def _rotate(self, heads: Var, rope: Rope, angles: Angles) -> Var:
        half, rest = len(rope.inv_freq), self.config.head_dim - rope.rotated
        sizes = {"split_sizes": [half, half, rest]} if rest else {"num_splits": 2}
        first, second, *passed = self.mb.split(x=heads, **sizes, axis=self.head_channels)
        swapped = self.mb.concat(values=[second, first, *passed], axis=self.head_channels)
        return self.mb.add(x=self.mb.mul(x=heads, y=angles[0]), y=self.mb.mul(x=swapped, y=angles[1]))

    # --- cache ---

    def _read(self, name: str) -> Var:
        return self.mb.read_state(input=self.inputs[name]) if self.call.cache == "state" else self.inputs[name]

    def _layer_of(self, cache: Var, layer: int) -> Var:
        row, kv_heads = layer - self.call.first_layer, self.config.layer(layer).kv_heads
        return self.mb.slice_by_index(
            x=cache, begin=[row, 0, 0, 0], end=[row + 1, kv_heads, self.call.context, self.config.head_dim]
        )

    def _all_heads(self, rows: Var) -> Var:
        """Rows of the cache, with zeros for the heads that other layers have more."""
        missing = self.config.kv_heads - rows.shape[1]
        if not missing:
            return rows
        shape = (1, missing, self.call.length, self.config.head_dim)
        zeros = self._floats(f"no_heads_{shape[1]}_{shape[2]}", lambda: np.zeros(shape), shape)
        return self.mb.concat(values=[rows, zeros], axis=1)

    def _write(self, name: str, past: Var, rows: Var) -> None:
        """All layers' new rows into the state, in one write."""
        update = self._by_slice if self.call.cache_write == "slice_update" else self._by_mask
        self.mb.coreml_update_state(state=self.inputs[name], value=update(past, rows))

    def _by_slice(self, past: Var, rows: Var) -> Var:
        begin = self.mb.concat(values=[[0, 0], self.inputs["position"], [0]], axis=0)
        stop = self.mb.add(x=self.inputs["position"], y=np.int32(self.call.length))
        end = self.mb.concat(values=[[0, 0], stop, [0]], axis=0)
        whole = [True, True, False, True]
        return self.mb.slice_update(x=past, update=rows, begin=begin, end=end, begin_mask=whole, end_mask=whole)

    def _by_mask(self, past: Var, rows: Var) -> Var:
        """past where no token goes, and each token's row placed by a product with a matrix of 0s and 1s: exact."""
        context, length = self.call.context, self.call.length
        here = self.mb.equal(
            x=self.mb.reshape(x=self._slots, shape=[context, 1]), y=self.mb.reshape(x=self._places, shape=[1, length])
        )
        places = self.mb.reshape(x=self.mb.cast(x=here, dtype=self._dtype_name()), shape=[1, 1, context, length])
        kept = self.mb.sub(x=self._number(1), y=self.mb.reduce_sum(x=places, axes=[3], keep_dims=True))
        return self.mb.add(x=self.mb.mul(x=past, y=kept), y=self.mb.matmul(x=places, y=rows))
