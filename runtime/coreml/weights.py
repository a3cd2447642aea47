"""The weights of a package: how each is compressed, what it takes in the file and when expanded. Nothing is expanded.

A weight is a constant in a weight file, or what a tree of constexpr ops makes of several. Constants that lie in the
proto itself are settings, not weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp, elements
from satchel.runtime.mil.dtypes import DType
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.values import constant_shape


@dataclass(frozen=True, order=True)
class Extent:
    """Where the data of a blob lies.

    Attributes:
        file: as the program names it.
        start, size: bytes.
    """

    file: str
    start: int
    size: int


@dataclass(frozen=True)
class Weight:
    """One weight, or one and the same in several functions.

    Attributes:
        name: of its first value in the program.
        shape: expanded.
        dtype: expanded.
        compression: such as "dense", "palette 4 bit, groups of 16", "affine int8, per channel".
        extents: of its blobs in the file, metadata left out.
        immediate_bytes: of its parts that lie in the proto.
        uses: (function, name) of every place where it is defined.
    """

    name: str
    shape: tuple[int, ...]
    dtype: DType
    compression: str
    extents: tuple[Extent, ...]
    immediate_bytes: int
    uses: tuple[tuple[str, str], ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return elements(self.shape)

    @property
    def blob_bytes(self) -> int:
        """What it takes in the weight file."""
        return sum(e.size for e in self.extents)

    @property
    def stored_bytes(self) -> int:
        """What it takes in the file and in the proto."""
        return self.blob_bytes + self.immediate_bytes

    @property
    def expanded_bytes(self) -> int:
        """What it takes once every number is written out."""
        return self.dtype.nbytes(self.elements)

    @property
    def bits_per_weight(self) -> float:
        """Bits stored for each number, tables and scales counted."""
        return 8 * self.stored_bytes / self.elements if self.elements else 0.0


def weights(functions: Iterable[FunctionSurvey]) -> tuple[Weight, ...]:
    """Every weight once, the same in several functions merged, in the program's order."""
    found: dict[Any, Weight] = {}
    for function in functions:
        for op in function.ops:
            for weight in _weights(function, op):
                key = (weight.dtype.name, weight.shape, weight.compression, weight.extents)
                known = found.get(key, weight)
                uses = known.uses if known is weight else (*known.uses, *weight.uses)
                found[key] = replace(known, uses=uses)
    return tuple(found.values())


def _weights(function: FunctionSurvey, op: SurveyedOp) -> Iterator[Weight]:
    """The weights that an op reads in place, or is."""
    if op.computes:
        for values in op.arguments.values():
            for value in values:
                if not isinstance(value, str) and value.WhichOneof("value") == "blobFileValue":
                    yield _dense(function, op, op.name, value)
    elif op.type == "const":
        value = op.proto.attributes["val"]
        if value.WhichOneof("value") == "blobFileValue" and not _feeds_only_compression(function, op):
            yield _dense(function, op, op.name, value)
    elif not _feeds_only_compression(function, op):
        yield from _compressed(function, op)


def _feeds_only_compression(function: FunctionSurvey, op: SurveyedOp) -> bool:
    users = [u for name in op.outputs for u in function.readers.get(name, [])]
    return bool(users) and all(u.is_compression for u in users) and not set(op.outputs) & set(function.outputs)


def _dense(function: FunctionSurvey, op: SurveyedOp, name: str, value: Any) -> Weight:
    dtype, shape = constant_shape(value)
    return Weight(name, shape, dtype, "dense", (extent(function.package, value),), 0, ((op.function, name),))


def _compressed(function: FunctionSurvey, op: SurveyedOp) -> Iterator[Weight]:
    if not op.outputs:
        return
    output = op.proto.outputs[-1]  # of two results, mask and values, the values come last
    dtype, shape = constant_shape(output)
    parts = list(leaves(function, op))
    stored = [v for v in parts if v.WhichOneof("value") == "blobFileValue"]
    immediate = sum(_immediate_bytes(v) for v in parts if v.WhichOneof("value") != "blobFileValue")
    extents = tuple(dict.fromkeys(extent(function.package, v) for v in stored))
    name = output.name
    yield Weight(name, shape, dtype, compression(function, op), extents, immediate, ((op.function, name),))


def leaves(function: FunctionSurvey, op: SurveyedOp, seen: set[int] | None = None) -> Iterator[Any]:
    """The plain constants from which a compressed one is made; settings such as a shape or an axis left out."""
    seen = set() if seen is None else seen
    if id(op) in seen:
        return
    seen.add(id(op))
    for parameter, values in op.arguments.items():
        if parameter in SETTINGS:
            continue
        for value in values:
            proto = function.constant(value)
            if proto is not None:
                yield proto
            elif isinstance(value, str) and (maker := function.makers.get(value)) and maker.is_compression:
                yield from leaves(function, maker, seen)


SETTINGS = ("shape", "axis", "vector_axis", "output_dtype")


def _immediate_bytes(value: Any) -> int:
    dtype, shape = constant_shape(value)
    return dtype.nbytes(elements(shape))


def extent(package: Package, value: Any) -> Extent:
    """Where a constant in a weight file lies; FormatError where the file has no such blob."""
    blob = value.blobFileValue
    return Extent(blob.fileName, *package.blob_file(blob.fileName).extent(blob.offset))


# ---- what it is called ---------------------------------------------------------------------------------------------


def compression(function: FunctionSurvey, op: SurveyedOp) -> str:
    """How an op compresses, and what compresses its parts: "sparse, palette 4 bit"."""
    labels = [LABELS.get(op.type, lambda _f, o: o.type.removeprefix("constexpr_"))(function, op)]
    seen = {id(op)}
    for parameter in PARTS:
        maker = function.maker(op, parameter)
        if maker is not None and maker.is_compression and id(maker) not in seen:
            seen.add(id(maker))
            labels.append(compression(function, maker))
    if labels[0] == "sparse" and len(labels) > 1 and labels[1].startswith("sparse "):
        labels.pop(0)  # the op that fills in the zeros of another sparse one
    return " of ".join(labels)


PARTS = ("data", "nonzero_data", "indices", "quantized_data", "source_val", "lut", "indices_nonzero_data")


def palette_bits(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Bits of a palette's indices; 0 where they cannot be told."""
    found = next((t for n in ("indices", "indices_nonzero_data") if (t := function.argument_type(op, n))), None)
    table = function.argument_type(op, "lut")
    if found is None or table is None:
        return 0
    if "shape" in op.arguments:  # before iOS 18 the indices are packed in bytes
        return elements(table[1]).bit_length() - 1
    return found[0].bits


def palette_groups(function: FunctionSurvey, op: SurveyedOp) -> tuple[tuple[int, int], ...]:
    """(axis, numbers per palette along it) of a palette that is not one for the whole tensor."""
    table, result = function.argument_type(op, "lut"), function.result_type(op)
    if table is None or result is None or "shape" in op.arguments or len(table[1]) < 3:
        return ()
    sizes = zip(result[1], table[1][:-2], strict=False)
    return tuple((axis, size // count) for axis, (size, count) in enumerate(sizes) if size and count and count > 1)


def palette_vector(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Numbers in one entry of a palette."""
    table = function.argument_type(op, "lut")
    return int(table[1][-1] or 1) if table and "shape" not in op.arguments and len(table[1]) > 2 else 1


def _palette(function: FunctionSurvey, op: SurveyedOp) -> str:
    label = f"palette {palette_bits(function, op)} bit"
    groups = palette_groups(function, op)
    if groups:
        label += ", groups of " + " x ".join(str(size) for _, size in groups)
    else:
        label += ", per tensor"
    table = function.argument_type(op, "lut")
    if table and not table[0].is_float:
        label += f", {table[0].name} entries"
    vector = palette_vector(function, op)
    return f"{label}, vectors of {vector}" if vector > 1 else label


def scale_blocks(function: FunctionSurvey, op: SurveyedOp) -> tuple[tuple[int, int, int], ...]:
    """(axis, blocks along it, numbers per block) of a quantized constant, where an axis has more than one scale."""
    data = function.result_type(op) or function.argument_type(op, "data")
    scale = function.argument_type(op, "scale")
    if data is None or scale is None or len(data[1]) != len(scale[1]):
        return ()
    pairs = enumerate(zip(data[1], scale[1], strict=True))
    return tuple((axis, count, size // count) for axis, (size, count) in pairs if size and count and count > 1)


def is_per_block(function: FunctionSurvey, op: SurveyedOp) -> bool:
    """Whether scales differ inside a channel: more than one axis has several, or one scale serves several places."""
    blocks = scale_blocks(function, op)
    return len(blocks) > 1 or any(size > 1 for _, _, size in blocks)


def _shift_scale(function: FunctionSurvey, op: SurveyedOp) -> str:
    data = next((t for n in ("data", "nonzero_data") if (t := function.argument_type(op, n))), None)
    name = data[0].name if data else "data"
    blocks = scale_blocks(function, op)
    if not blocks:
        return f"scale {name}, per tensor"
    if is_per_block(function, op):
        return f"scale {name}, blocks of " + " x ".join(str(size) for _, _, size in blocks)
    return f"scale {name}, per channel"


def _affine(function: FunctionSurvey, op: SurveyedOp) -> str:
    data, scale = function.argument_type(op, "quantized_data"), function.argument_type(op, "scale")
    grain = "per channel" if scale and elements(scale[1]) > 1 else "per tensor"
    return f"affine {data[0].name if data else 'data'}, {grain}"


LABELS: dict[str, Any] = {
    "constexpr_lut_to_dense": _palette,
    "constexpr_lut_to_sparse": lambda f, o: "sparse " + _palette(f, o),
    "constexpr_affine_dequantize": _affine,
    "constexpr_blockwise_shift_scale": _shift_scale,
    "constexpr_sparse_blockwise_shift_scale": lambda f, o: "sparse " + _shift_scale(f, o),
    "constexpr_sparse_to_dense": lambda _f, _o: "sparse",
    "constexpr_cast": lambda _f, _o: "cast",
}
