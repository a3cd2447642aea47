"""How each kind of compressed matrix becomes operands of an ONNX graph.

Quantized matrices become operands of MatMulNBits (com.microsoft), which GatherBlockQuantized shares:

    W[r, c] = scale[r, b] * (code[r, c] - zero[r, b])       b = c // block

A palette is stored as it is, indices of few bits and LUTs, and decoded by standard operators over constants alone:

    codes [rows, blocks, block] uint8 = what onnx_palette.py makes of indices and LUTs, of any width
    scales [rows, blocks] fp32        = Expand(Cast(row_scale))

onnxruntime folds these when it loads the file: the file stays at 4 bits, and the kernel sees 8-bit codes whose zero
point is the default, 128. Matrices over the same input are joined after decoding (Concat), not before: an offset into a
common table would be one more int32 for each weight, and folding keeps every such value until it is through.

Blocks that begin at a minimum m (GGUF's Q4_1) are d (q - 8) + (m + 8 d): the offset of each block meets the sum of the
activations of that block in a product of 1 / block of the size.

The other way, int8 codes -> DequantizeLinear -> MatMul, is as fast and as large in memory once onnxruntime has replaced
it by MatMulNBits, but for 8 bits and a scale a row that was added in 2026-03 (pull requests 27614 and 27769); an older
one would multiply in fp32. The form above runs from 1.23 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from satchel.export.ops import onnx_palette
from satchel.export.ops.onnx_graph import GraphBuilder
from satchel.export.palettize.packing import pack_bits, pack_nibbles
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor, PlainTensor
from satchel.runtime.errors import FormatError

ROW_SCALE_BLOCKS = (64, 32, 16)
"""Block sizes for codes that have one scale a row, best first. The kernel keeps a scale and a sum for each block, and
rounds activations by the same blocks: 64 reads 10% less than 32 and decodes 6% faster. On SmolLM2 in int8 the rounding
then costs a KL of 0.005 where 32 has 0.003."""


@dataclass(frozen=True)
class NBits:
    """Operands of MatMulNBits: codes [rows, blocks, bytes of a block], scales [rows, blocks], zero points or None.

    Attributes:
        offsets: fp32 [rows, blocks] to be added to every weight of a block, or None. MatMulNBits knows zero points of
            floats, but unpacks the whole matrix for them in each call; so they come in as a product of their own.
    """

    codes: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None
    bits: int
    block: int
    rows: int
    columns: int
    offsets: ir.Value | None = None


def stackable(matrices: Sequence[Matrix]) -> bool:
    """Whether matrices over the same input can be stored as one."""
    return len({_kind(m) for m in matrices}) == 1


def _kind(matrix: Matrix) -> tuple[object, ...]:
    if isinstance(matrix, AffineTensor):
        return ("affine", matrix.bits, matrix.block, matrix.scale_dtype, matrix.shape[1], matrix.minimum is None)
    if isinstance(matrix, PalettizedTensor):
        return ("palette", matrix.shape[1])  # of any width: all are decoded to 8-bit codes
    return ("plain", matrix.values.dtype, matrix.shape[1])


def plain(graph: GraphBuilder, name: str, matrices: Sequence[PlainTensor]) -> ir.Value:
    """Float matrices one under the other, [rows, columns], in the dtype that they are kept in."""
    return graph.initializer(f"{name}.weight", np.concatenate([m.values for m in matrices]))


def nbits(graph: GraphBuilder, name: str, names: Sequence[str], matrices: Sequence[Matrix]) -> NBits:
    """Quantized matrices of one kind, one under the other; `name` is for what they share."""
    palettes = [m for m in matrices if isinstance(m, PalettizedTensor)]
    if palettes:
        return _palette(graph, name, names, palettes)
    return _affine(graph, name, [m for m in matrices if isinstance(m, AffineTensor)])


def _affine(graph: GraphBuilder, name: str, matrices: Sequence[AffineTensor]) -> NBits:
    rows, columns = sum(m.shape[0] for m in matrices), matrices[0].shape[1]
    block, bits, dtype = matrices[0].block, matrices[0].bits, matrices[0].scale_dtype
    code = np.concatenate([pack_bits(m.code, bits) for m in matrices])
    codes = graph.initializer(f"{name}.code", code.reshape(rows, columns // block, -1))
    scales = _scales(graph, f"{name}.scale", np.concatenate([m.scale for m in matrices]), dtype)
    minima = [m.minimum for m in matrices if m.minimum is not None]
    offsets = _offsets(graph, name, np.concatenate(minima), dtype, scales, bits) if minima else None
    zero_points = None
    if not minima and not all(m.symmetric for m in matrices):
        zeros = np.concatenate([m.zero_point for m in matrices])
        zero_points = graph.initializer(f"{name}.zero_point", pack_nibbles(zeros) if bits == 4 else zeros)
    return NBits(codes, scales, zero_points, bits, block, rows, columns, offsets)


def _offsets(graph: GraphBuilder, name: str, minimum: np.ndarray, dtype: str, scales: ir.Value, bits: int) -> ir.Value:
    """minimum + middle * scale: what is to be added where the kernel takes the middle code, its default, for zero."""
    middle = graph.initializer(f"middle.{bits}", np.array(2 ** (bits - 1), np.float32))
    moved = graph.node("Mul", f"{name}.middle", [scales, middle])
    return graph.node("Add", f"{name}.offset", [_scales(graph, f"{name}.minimum", minimum, dtype), moved])


def _palette(graph: GraphBuilder, name: str, names: Sequence[str], matrices: Sequence[PalettizedTensor]) -> NBits:
    rows, columns = sum(m.shape[0] for m in matrices), matrices[0].shape[1]
    block = next((b for b in ROW_SCALE_BLOCKS if columns % b == 0), 0)
    if not block:
        raise FormatError(f"ONNX: a quantized matrix ({name})", got=f"{columns} columns", wanted="a multiple of 16")
    if all(_is_linear(m) for m in matrices):
        index = np.concatenate([m.index for m in matrices])
        codes = graph.initializer(f"{name}.code", index.reshape(rows, columns // block, block))
    else:
        parts = [_codes(graph, n, m, block) for n, m in zip(names, matrices, strict=True)]
        codes = parts[0] if len(parts) == 1 else graph.node("Concat", f"{name}.codes", parts, {"axis": 0})
    scale = np.concatenate([m.row_scale() for m in matrices])[:, None]
    narrow = _scales(
        graph, f"{name}.scale", scale, "float16" if (scale.astype(np.float16) == scale).all() else "float32"
    )
    shape = graph.initializer(f"{name}.scale.shape", np.array((rows, columns // block), np.int64))
    scales = graph.node("Expand", f"{name}.scales", [narrow, shape])
    return NBits(codes, scales, None, 8, block, rows, columns)


def _is_linear(matrix: PalettizedTensor) -> bool:
    """Whether the index is the code itself plus 128, as 8-bit embeddings have it."""
    return matrix.bits == 8 and bool((matrix.lut == np.arange(-128, 128, dtype=np.int8)).all())


def _codes(graph: GraphBuilder, name: str, matrix: PalettizedTensor, block: int) -> ir.Value:
    """Codes of one matrix: stored as they are, or decoded from indices."""
    if _is_linear(matrix):
        return graph.initializer(f"{name}.code", matrix.index.reshape(matrix.shape[0], -1, block))
    return onnx_palette.codes(graph, name, matrix, block)


def _scales(graph: GraphBuilder, name: str, scale: np.ndarray, dtype: str) -> ir.Value:
    """fp32 scales, stored in the narrower dtype that they are exact in."""
    if dtype == "float32":
        return graph.initializer(name, scale)
    if dtype == "float16":
        stored = graph.initializer(name, scale.astype(np.float16))
    else:  # the upper half of an fp32 number is the bfloat16 one
        bits = (scale.view(np.uint32) >> 16).astype(np.uint16)
        stored = graph.raw_initializer(name, bits.tobytes(), ir.DataType.BFLOAT16, scale.shape)
    return graph.cast(f"{name}.float", stored, ir.DataType.FLOAT)
