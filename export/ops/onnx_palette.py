"""A palette of 1 to 8 bits as an ONNX file stores it, and the operators that make 8-bit codes of it.

Several codes lie in one unit, and one lookup decodes a unit at once, so that folding takes few steps and little memory:

    table [2**unit, codes a unit] uint8 = Gather(lut, every way to fill a unit)       lut = int8 entries + 128
    codes [rows, blocks, block] uint8   = Reshape(Gather(table, units))

A unit is a byte: eight codes of 1 bit, four of 2, two of 4. Codes of 3 and 6 bits do not divide a byte, so their unit
has 12 bits, four or two codes; its low byte and its high nibble are a tensor each. All of it are operators that
onnxruntime has kernels for on a CPU, and folds when it loads a file: Cast, Mul, Add, Gather, Reshape.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from satchel.export.ops.onnx_graph import GraphBuilder
from satchel.export.palettize.packing import pack_nibbles
from satchel.export.palettize.tensors import PalettizedTensor

UNIT_BITS = {1: 8, 2: 8, 3: 12, 4: 8, 6: 12}
"""Bits of a unit by bits of a code; other widths take a byte a code."""


def codes(graph: GraphBuilder, name: str, matrix: PalettizedTensor, block: int) -> ir.Value:
    """uint8 [rows, blocks, block]: int8 codes + 128, of a matrix that is stored as indices and LUTs."""
    unit = UNIT_BITS.get(matrix.bits, 8)
    packed = _units(matrix, unit)
    entry = _entries(graph, name, packed.reshape(matrix.shape[0], matrix.shape[1] // block, -1), unit)
    if matrix.groups > 1:
        entry = graph.node("Add", f"{name}.entry", [entry, _offset(graph, name, matrix, unit)])
    decoded = graph.node("Gather", f"{name}.decoded", [_table(graph, name, matrix, unit), entry], {"axis": 0})
    shape = (matrix.shape[0], matrix.shape[1] // block, block)
    target = graph.initializer(f"shape.{'.'.join(map(str, shape))}", np.array(shape, np.int64))
    return graph.node("Reshape", f"{name}.codes", [decoded, target])


def _per_unit(bits: int, unit: int) -> int:
    return unit // bits if bits in UNIT_BITS else 1


def _units(matrix: PalettizedTensor, unit: int) -> np.ndarray:
    """Consecutive codes of a row joined into units, the first in the low bits; uint8 or uint16 [rows, units]."""
    per = _per_unit(matrix.bits, unit)
    parts = matrix.index.reshape(matrix.shape[0], -1, per)
    out = np.zeros(parts.shape[:2], np.uint8 if unit == 8 else np.uint16)
    for place in range(per):
        out |= parts[:, :, place].astype(out.dtype) << (place * matrix.bits)
    return out


def _entries(graph: GraphBuilder, name: str, units: np.ndarray, unit: int) -> ir.Value:
    """The units as int32, from tensors that take no more room than their bits."""
    low = graph.initializer(f"{name}.index", units.astype(np.uint8))
    entry = graph.cast(f"{name}.index.int32", low, ir.DataType.INT32)
    if unit == 8:
        return entry
    nibbles = pack_nibbles((units >> 8).astype(np.uint8).reshape(-1))
    graph.require("1.23", "Cast from 4-bit integers, with which a palette of 3 or 6 bits begins")
    high = graph.raw_initializer(f"{name}.index.high", nibbles.tobytes(), ir.DataType.UINT4, units.shape)
    step = graph.initializer("palette.step", np.array(256, np.int32))
    wide = graph.cast(f"{name}.index.high.int32", high, ir.DataType.INT32)
    return graph.node("Add", f"{name}.unit", [entry, graph.node("Mul", f"{name}.index.high.step", [wide, step])])


def _table(graph: GraphBuilder, name: str, matrix: PalettizedTensor, unit: int) -> ir.Value:
    """uint8 [groups * 2**unit, codes a unit]: what each unit decodes to, by the LUT of each group."""
    lut = graph.initializer(f"{name}.lut", (matrix.lut.astype(np.int16) + 128).astype(np.uint8))
    per = _per_unit(matrix.bits, unit)
    ways = np.arange(2**unit)[:, None] >> (np.arange(per) * matrix.bits) & (2**matrix.bits - 1)
    stored = graph.initializer(f"palette.{matrix.bits}bits", ways.astype(np.uint8))
    ways_int = graph.cached_cast(stored, ir.DataType.INT32)
    by_group = graph.node("Gather", f"{name}.tables", [lut, ways_int], {"axis": 1})
    flat = graph.initializer(f"palette.table.{per}", np.array((-1, per), np.int64))
    return graph.node("Reshape", f"{name}.table", [by_group, flat])


def _offset(graph: GraphBuilder, name: str, matrix: PalettizedTensor, unit: int) -> ir.Value:
    """int32 [rows, 1, 1]: where each row's table begins."""
    group = np.repeat(np.arange(matrix.groups, dtype=np.uint16), matrix.shape[0] // matrix.groups)[:, None, None]
    step = graph.initializer(f"palette.table.step.{unit}", np.array(2**unit, np.int32))
    stored = graph.cast(f"{name}.group.int32", graph.initializer(f"{name}.group", group), ir.DataType.INT32)
    return graph.node("Mul", f"{name}.offset", [stored, step])
