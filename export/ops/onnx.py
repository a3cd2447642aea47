"""The decoder's operators in ONNX, with onnxruntime's fused ones where they exist (domain com.microsoft).

A value is usually an ir.Value [batch, sequence, channels] in fp32. Two kinds stay open until it is known what they are
for: a part of a packed linear (attention takes q, k and v as one tensor), and a residual sum (a norm takes it along).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from satchel.export.families.base import DecoderConfig, Rope
from satchel.export.families.blocks import Blocks
from satchel.export.ops.base import Weights
from satchel.export.ops.onnx_blocks import block_bias
from satchel.export.ops.onnx_graph import MICROSOFT, GraphBuilder
from satchel.export.ops.onnx_matrices import NBits, nbits, plain, stackable
from satchel.export.ops.onnx_values import CacheInputs, Part, RotaryInputs, Sum, Tensor
from satchel.export.palettize.tensors import Matrix, PlainTensor
from satchel.export.rope import rope_tables

__all__ = ["ACCURACY_LEVEL", "CacheInputs", "OnnxOps", "Tensor"]

ACCURACY_LEVEL = 4
"""MatMulNBits rounds activations to int8 by blocks; its float kernel for 8 bits is some 50 times slower."""

FUSED_CHANNELS = 16
"""GroupQueryAttention rotates a multiple of so many channels of a head."""


class OnnxOps:
    """An OpSet (ops/base.py) that appends to a graph.

    Args:
        graph: where nodes go.
        config, weights: of the model.
        ids: int64 [batch, sequence], the tokens.
        cache: see CacheInputs.
        last_token: whether lm_head is computed for the last token only.
        accuracy_level: of MatMulNBits with 4-bit codes; 8-bit ones are always at ACCURACY_LEVEL.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        config: DecoderConfig,
        weights: Weights,
        ids: ir.Value,
        cache: CacheInputs,
        *,
        last_token: bool = True,
        accuracy_level: int = ACCURACY_LEVEL,
    ) -> None:
        self.present: list[tuple[ir.Value, ir.Value]] = []
        self._graph = graph
        self.config = config
        self._weights = weights
        self._ids = ids
        self._cache = cache
        self._last_token = last_token
        self._accuracy_level = accuracy_level
        self._embedding: NBits | ir.Value | None = None
        self._ropes: dict[Rope, RotaryInputs] = {}
        self._made: dict[str, ir.Value] = {}
        self._parts: dict[str, list[ir.Value]] = {}

    def embed(self, name: str) -> Tensor:
        """Rows of the embedding; 8-bit ones by GatherBlockQuantized, from the same bytes as a tied lm_head."""
        table = self._table(name)
        if isinstance(table, ir.Value):
            metadata = _metadata([name], [self._rows(name)])
            rows = self._graph.node("Gather", f"{name}.rows", [table, self._ids], {"axis": 0}, metadata=metadata)
            return self._float(f"{name}.rows.float", rows, table)
        flat = self._graph.initializer(f"{name}.shape", np.array([table.rows, -1], np.int64))
        data = self._graph.node("Reshape", f"{name}.flat", [table.codes, flat])
        self._graph.require("1.23", "GatherBlockQuantized over uint8 of 8 bits, or with zero points")
        rows = self._graph.node(
            "GatherBlockQuantized",
            f"{name}.rows",
            [data, self._ids, table.scales, table.zero_points],
            {"bits": table.bits, "block_size": table.block, "gather_axis": 0, "quantize_axis": 1},
            domain=MICROSOFT,
            metadata=_metadata([name], [table.rows], table),
        )
        return rows if table.offsets is None else self._with_offsets(name, rows, table, table.offsets)

    def _table(self, name: str) -> NBits | ir.Value:
        """The embedding's matrix, made once: a tied head reads it too, also in a graph that embeds nothing itself."""
        if self._embedding is None:
            self._embedding = self._matrices(name, [name], [self._weights.matrix(name)])
        return self._embedding

    def _with_offsets(self, name: str, rows: ir.Value, table: NBits, offsets: ir.Value) -> ir.Value:
        """Rows of the embedding, each block with its offset added."""
        gathered = self._graph.node("Gather", f"{name}.offset.rows", [offsets, self._ids], {"axis": 0})
        ones = self._graph.initializer("blocks.one", np.array([-1], np.int64))
        wide = self._graph.node("Unsqueeze", f"{name}.offset.wide", [gathered, ones])
        moved = self._graph.node("Add", f"{name}.moved", [self._in_blocks(f"{name}.blocks", rows, table), wide])
        flat = self._graph.initializer(f"{name}.flat.shape", np.array([0, 0, table.columns], np.int64))
        return self._graph.node("Reshape", f"{name}.whole", [moved, flat])

    def _in_blocks(self, name: str, x: ir.Value, matrix: NBits) -> ir.Value:
        """x [batch, sequence, columns] as [batch, sequence, blocks, block]."""
        shape = (0, 0, matrix.columns // matrix.block, matrix.block)
        target = self._graph.initializer(f"shape.{'.'.join(map(str, shape))}", np.array(shape, np.int64))
        return self._graph.node("Reshape", name, [x, target])

    def _of_offsets(self, x: ir.Value, output: str, matrix: NBits, offsets: ir.Value) -> ir.Value:
        """The sums of x over each block, times the offsets of the blocks."""
        last = self._graph.initializer("blocks.last", np.array([-1], np.int64))
        blocks = self._in_blocks(f"{output}.blocks", x, matrix)
        sums = self._graph.node("ReduceSum", f"{output}.sums", [blocks, last], {"keepdims": 0})
        columns = self._graph.node("Transpose", f"{output}.offset.columns", [offsets], {"perm": [1, 0]})
        return self._graph.node("MatMul", f"{output}.of_offsets", [sums, columns])

    def norm(self, x: Tensor, name: str) -> Tensor:
        """RMSNorm or LayerNorm; a residual sum that is still open is computed by the same node."""
        layer, op = self.config.norm == "layer", self._norm_op
        vectors = {f"{name}.weight": name} | ({f"{name}.bias": f"{name}.bias"} if layer else {})
        values = [
            self._graph.initializer(stored, self._weights.vector(vector).astype(np.float32))
            for stored, vector in vectors.items()
        ]
        epsilon = {"epsilon": self.config.norm_eps}
        if not isinstance(x, Sum) or x.total is not None:
            return self._graph.node(op, name, [self._value(x), *values], epsilon | {"axis": -1})
        outputs = [True, False, False, name != "norm"]  # after the last norm nobody asks for the sum
        inputs = [x.x, x.y, *values]
        found = self._graph.nodes_out(f"Skip{op}", name, inputs, epsilon, outputs=outputs, domain=MICROSOFT)
        x.total = found[3]
        return found[0]

    @property
    def _norm_op(self) -> str:
        return "LayerNormalization" if self.config.norm == "layer" else "SimplifiedLayerNormalization"

    def head_norm(self, x: Tensor, name: str) -> Tensor:
        """The norm over the last of [batch, sequence, heads, head_dim]; gains that differ by head come after it."""
        dim, gain = self.config.head_dim, self._weights.vector(name).astype(np.float32)
        heads = self._graph.node("Reshape", f"{name}.heads", [self._value(x), self._shape(0, 0, -1, dim)])
        one_gain = gain.size == dim
        first = (f"{name}.weight", gain) if one_gain else (f"ones.{dim}", np.ones(dim, np.float32))
        attributes = {"epsilon": self.config.norm_eps, "axis": -1}
        normed = self._graph.node(self._norm_op, f"{name}.normed", [heads, self._graph.initializer(*first)], attributes)
        if not one_gain:
            gains = self._graph.initializer(f"{name}.weight", gain.reshape(-1, dim))
            normed = self._graph.node("Mul", f"{name}.gained", [normed, gains])
        return self._graph.node("Reshape", name, [normed, self._shape(0, 0, -1)])

    def linears(self, x: Tensor, names: list[str]) -> list[Tensor]:
        """Linears over one input, packed into one where their weights are of one kind."""
        matrices, given = [self._weights.matrix(name) for name in names], self._value(x)
        if len(names) == 1 or not stackable(matrices):
            return [self._linear(given, [name], [m]) for name, m in zip(names, matrices, strict=True)]
        packed = self._linear(given, names, matrices)
        widths = tuple(m.shape[0] for m in matrices)
        return [Part(packed, widths, i) for i in range(len(names))]

    def attention(self, q: Tensor, k: Tensor, v: Tensor, layer: int) -> Tensor:
        """GroupQueryAttention with rotary embedding; it writes the cache in place where past and present are one."""
        c, cache, options = self.config, self._cache, self.config.layer(layer)
        rotary = self._rotary(options.rope) if options.rope else None
        if rotary and not rotary.fused:
            q, k = (
                self._rotated(self._value(x), rotary, f"layers.{layer}.self_attn.{n}") for x, n in ((q, "q"), (k, "k"))
            )
        packed = [x.packed for x in (q, k, v) if isinstance(x, Part)]
        qkv = [packed[0], None, None] if len(packed) == 3 else [self._value(q), self._value(k), self._value(v)]
        inputs = [*qkv, *cache.past[layer], cache.last_position, cache.total_length]
        attributes: dict[str, int | float] = {
            "num_heads": options.heads,
            "kv_num_heads": options.kv_heads,
            "do_rotary": 0,
            "scale": c.score_scale,
        }
        if rotary and rotary.fused:
            inputs += [rotary.cosine, rotary.sine]
            attributes["do_rotary"] = 1
        if window := options.windowed(cache.context):
            attributes["local_window_size"] = window
            self._graph.require("1.24", "attention with a window, which counted one token more before")
        if c.attention_softcap:
            attributes["softcap"] = c.attention_softcap
        if blocks := options.blocked(cache.context):
            self._graph.require("1.22", "attention with a mask for each head")
            inputs += [None] * (10 - len(inputs)) + [self._block_bias(blocks, options.heads)]
        name = f"layers.{layer}.self_attn"
        values = self._graph.nodes_out(
            "GroupQueryAttention", name, inputs, attributes, outputs=[True] * 3, domain=MICROSOFT
        )
        self.present.append((values[1], values[2]))
        return values[0]

    def _rotary(self, rope: Rope) -> RotaryInputs:
        """The tables of a rope, made once."""
        if rope not in self._ropes:
            suffix = f".{len(self._ropes)}" if self._ropes else ""
            cosine, sine = rope_tables(rope, self._cache.context)
            fused = rope.rotated % FUSED_CHANNELS == 0
            self._ropes[rope] = RotaryInputs(
                self._graph.initializer(f"rope.cos{suffix}", cosine),
                self._graph.initializer(f"rope.sin{suffix}", sine),
                rope.rotated,
                fused,
            )
        return self._ropes[rope]

    def _rotated(self, x: ir.Value, rotary: RotaryInputs, name: str) -> ir.Value:
        """Rotary embedding by standard operators, for widths that the fused operator does not take."""
        graph, dim, half = self._graph, self.config.head_dim, rotary.rotated // 2
        cosine, sine = (self._at_positions(table) for table in (rotary.cosine, rotary.sine))
        heads = graph.node("Reshape", f"{name}.heads", [x, self._shape(0, 0, -1, dim)])
        widths = [half, half] + ([dim - 2 * half] if dim > 2 * half else [])
        sizes = graph.initializer(f"split.{'.'.join(map(str, widths))}", np.array(widths, np.int64))
        first, second, *rest = graph.nodes_out(
            "Split", f"{name}.split", [heads, sizes], {"axis": -1}, outputs=[True] * len(widths)
        )
        turned = [
            graph.node(op, f"{name}.{out}", [
                graph.node("Mul", f"{name}.{out}.cos", [x, cosine]), graph.node("Mul", f"{name}.{out}.sin", [y, sine])
            ])
            for op, out, x, y in (("Sub", "first", first, second), ("Add", "second", second, first))
        ]  # fmt: skip
        joined = graph.node("Concat", f"{name}.turned", [*turned, *rest], {"axis": -1})
        return graph.node("Reshape", f"{name}.rotated", [joined, self._shape(0, 0, -1)])

    def _at_positions(self, table: ir.Value) -> ir.Value:
        """The rows of a table for the tokens of this call, [batch, sequence, 1, rotated / 2]; made once."""
        name = f"{table.name}.rows"
        if name not in self._made:
            rows = self._graph.node("Gather", f"{name}.flat", [table, self._positions()], {"axis": 0})
            two = self._graph.initializer("rope.axis", np.array([2], np.int64))
            self._made[name] = self._graph.node("Unsqueeze", name, [rows, two])
        return self._made[name]

    def _positions(self) -> ir.Value:
        """int64 [batch, sequence]: last_position - sequence + 1 + (0, 1, ...).

        In a batch of prompts, the shorter ones padded at their ends, that is below 0 for those: they begin at 0 too.
        """
        if "positions" not in self._made:
            graph = self._graph
            zero, one = (graph.initializer(f"positions.{n}", np.array(n, np.int64)) for n in (0, 1))
            axis = graph.initializer("positions.axis", np.array([1], np.int64))
            shape = graph.node("Shape", "positions.shape", [self._ids])
            length = graph.node("Gather", "positions.length", [shape, one], {"axis": 0})
            last = graph.cast("positions.last", self._cache.last_position, ir.DataType.INT64)
            first = graph.node("Add", "positions.begin", [graph.node("Sub", "positions.past", [last, length]), one])
            first = graph.node("Max", "positions.first", [first, zero])
            steps = graph.node("Range", "positions.steps", [zero, length, one])
            column = graph.node("Unsqueeze", "positions.column", [first, axis])
            self._made["positions"] = graph.node("Add", "positions", [column, steps])
        return self._made["positions"]

    def _block_bias(self, blocks: Blocks, heads: int) -> ir.Value:
        """See onnx_blocks.py; made once."""
        key = f"blocks.{blocks.size}.{blocks.local}.{blocks.stride}.{1 if blocks.alike else heads}"
        if key not in self._made:
            total = self._cache.total_length
            positions, context = self._positions(), self._cache.context
            self._made[key] = block_bias(self._graph, key, blocks, heads, context, positions, total)
        return self._made[key]

    def _shape(self, *sizes: int) -> ir.Value:
        return self._graph.initializer(f"shape.{'.'.join(map(str, sizes))}", np.array(sizes, np.int64))

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """activation(gate) * up."""
        name = f"layers.{len(self.present) - 1}.mlp"
        if self.config.activation == "gegelu":
            gate, up = self._clipped(name, self._value(gate), self._value(up))
        return self._graph.node("Mul", f"{name}.gated", [self.activated(gate), self._value(up)])

    def _clipped(self, name: str, gate: ir.Value, up: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The gate, and up + 1, each within the limit."""
        limit = self.config.gate_limit
        low, high, one = (
            self._graph.initializer(f"gate.{n}", np.array(v, np.float32))
            for n, v in (("low", -limit), ("high", limit), ("one", 1))
        )
        up = self._graph.node("Clip", f"{name}.up", [up, low, high])
        return self._graph.node("Min", f"{name}.gate", [gate, high]), self._graph.node("Add", f"{name}.up_1", [up, one])

    def activated(self, x: Tensor) -> ir.Value:
        """SiLU, GELU in its tanh form, or the gate's part of "gegelu"."""
        name = f"layers.{len(self.present) - 1}.mlp"
        alpha = {"silu": 1.0, "gegelu": 1.702}.get(self.config.activation)
        if alpha is not None:
            return self._graph.node("QuickGelu", f"{name}.silu", [self._value(x)], {"alpha": alpha}, domain=MICROSOFT)
        return self._graph.node("Gelu", f"{name}.gelu", [self._value(x)], {"approximate": "tanh"})

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The residual sum, left open for the norm that follows; a sum in it is that of parallel branches."""
        if isinstance(y, Sum):
            y = self._graph.node("Add", f"layers.{len(self.present) - 1}.branches", [y.x, y.y])
        return Sum(self._value(x), self._value(y))

    def scale(self, x: Tensor, factor: float) -> Tensor:
        """x * factor."""
        value = self._value(x)
        number = self._graph.initializer(f"scale.{factor!r}", np.array(factor, np.float32))
        return self._graph.node("Mul", f"{value.name}.scaled", [value, number])

    def lm_head(self, x: Tensor, name: str) -> Tensor:
        """Logits [batch, 1 or sequence, vocab]."""
        hidden, cap = self._value(x), self.config.logits_softcap
        if self._last_token:
            last = self._graph.initializer("last", np.array([-1], np.int64))
            hidden = self._graph.node("Gather", "last_token", [hidden, last], {"axis": 1})
        output = "logits.uncapped" if cap else "logits"
        if name == "embed_tokens":
            head = self._weights.vector("lm_head.bias") if self._weights.has("lm_head.bias") else None
            bias = None if head is None else self._graph.initializer("lm_head.bias", head.astype(np.float32))
            logits = self._apply(hidden, output, [name], self._table(name), bias)
        else:
            logits = self._linear(hidden, [name], [self._weights.matrix(name)], output=output)
        return self._capped(logits, cap) if cap else logits

    def _capped(self, logits: ir.Value, cap: float) -> ir.Value:
        """cap * tanh(logits / cap)."""
        number = self._graph.initializer("logits.cap", np.array(cap, np.float32))
        divided = self._graph.node("Div", "logits.divided", [logits, number])
        return self._graph.node("Mul", "logits", [self._graph.node("Tanh", "logits.tanh", [divided]), number])

    def _linear(self, x: ir.Value, names: list[str], matrices: Sequence[Matrix], output: str | None = None) -> ir.Value:
        name = _joined(names)
        return self._apply(
            x, output or name, names, self._matrices(name, names, matrices), self._bias(name, names, matrices)
        )

    def _apply(
        self, x: ir.Value, output: str, names: list[str], matrix: NBits | ir.Value, bias: ir.Value | None
    ) -> ir.Value:
        """x times the transposed matrix, plus bias."""
        rows = _metadata(names, [self._rows(name) for name in names], matrix)
        if isinstance(matrix, ir.Value):
            weight = self._float(f"{output}.weight.float", matrix, matrix)
            product = output if bias is None else f"{output}.product"
            attributes = {"transB": 1, "alpha": 1.0}
            y = self._graph.node("FusedMatMul", product, [x, weight], attributes, domain=MICROSOFT, metadata=rows)
            return y if bias is None else self._graph.node("Add", output, [y, bias])
        if matrix.bits == 8:
            self._graph.require("1.22", "MatMulNBits of 8 bits")
        attributes = {"K": matrix.columns, "N": matrix.rows, "bits": matrix.bits, "block_size": matrix.block}
        inputs = [x, matrix.codes, matrix.scales, matrix.zero_points, None, bias]
        while inputs[-1] is None:
            inputs.pop()
        attributes["accuracy_level"] = self._accuracy_level if matrix.bits == 4 else ACCURACY_LEVEL
        if matrix.offsets is None:
            return self._graph.node("MatMulNBits", output, inputs, attributes, domain=MICROSOFT, metadata=rows)
        y = self._graph.node("MatMulNBits", f"{output}.product", inputs, attributes, domain=MICROSOFT, metadata=rows)
        return self._graph.node("Add", output, [y, self._of_offsets(x, output, matrix, matrix.offsets)])

    def _matrices(self, name: str, names: Sequence[str], matrices: Sequence[Matrix]) -> NBits | ir.Value:
        floats = [m for m in matrices if isinstance(m, PlainTensor)]
        if floats:
            return plain(self._graph, name, floats)
        return nbits(self._graph, name, names, matrices)

    def _bias(self, name: str, names: list[str], matrices: Sequence[Matrix]) -> ir.Value | None:
        if not any(self._weights.has(f"{n}.bias") for n in names):
            return None
        parts = [
            self._weights.vector(f"{n}.bias") if self._weights.has(f"{n}.bias") else np.zeros(m.shape[0])
            for n, m in zip(names, matrices, strict=True)
        ]
        return self._graph.initializer(f"{name}.bias", np.concatenate(parts).astype(np.float32))

    def _value(self, x: Tensor) -> ir.Value:
        """A value as it is, a sum added up, a part of a packed linear cut out."""
        if isinstance(x, Sum):
            if x.total is None:
                x.total = self._graph.node("Add", f"{x.y.name}.sum", [x.x, x.y])
            return x.total
        return self._cut(x) if isinstance(x, Part) else x

    def _cut(self, part: Part) -> ir.Value:
        name = str(part.packed.name)
        if name not in self._parts:
            widths = self._graph.initializer(
                f"split.{'.'.join(map(str, part.widths))}", np.array(part.widths, np.int64)
            )
            outputs = [True] * len(part.widths)
            self._parts[name] = self._graph.nodes_out(
                "Split", f"{name}.split", [part.packed, widths], {"axis": -1}, outputs=outputs
            )
        return self._parts[name][part.which]

    def _float(self, name: str, x: ir.Value, stored: ir.Value) -> ir.Value:
        """x in fp32, where what is stored is narrower."""
        return x if stored.dtype == ir.DataType.FLOAT else self._graph.cast(name, x, ir.DataType.FLOAT)

    def _rows(self, name: str) -> int:
        return self.config.matrix_shapes()[name][0]


def _joined(names: Sequence[str]) -> str:
    """ "a.q_proj", "a.k_proj" -> "a.q_proj+k_proj"."""
    return "+".join([names[0], *(name.rpartition(".")[2] for name in names[1:])])


def _metadata(names: Sequence[str], rows: Sequence[int], matrix: NBits | ir.Value | None = None) -> Mapping[str, str]:
    """Which canonical matrices a node multiplies with, and what is added to their blocks: for reading them back."""
    offsets = {"satchel.offsets": str(matrix.offsets.name)} if isinstance(matrix, NBits) and matrix.offsets else {}
    return {"satchel.names": ",".join(names), "satchel.rows": ",".join(map(str, rows)), **offsets}
