"""Reads the weights back out of model.onnx, as its own operators decode them.

Every node that multiplies by weights (MatMulNBits, FusedMatMul) or looks rows up (GatherBlockQuantized, Gather) says in
its metadata which canonical matrices it holds, one under the other:

    satchel.names = "layers.0.self_attn.q_proj,layers.0.self_attn.k_proj,layers.0.self_attn.v_proj"
    satchel.rows  = "576,192,192"

and, where an offset is added to every weight of a block by nodes of its own, which constant [rows, blocks] holds them:

    satchel.offsets = "layers.0.self_attn.q_proj+k_proj+v_proj.offset"

Of a traced module, the last node (Cast or Mul) of those that decode a weight of another kind says the same, and how it
lies there (runtime/module/layout.py):

    satchel.form = "transposed", satchel.groups = "1"

The operators that lead from stored tensors to such a node work on constants alone. They are carried out here in numpy,
so that the values are what an inference engine would fold, and not what this module assumes. Sums and products of
floats are exact until the values are rounded to fp32 in the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError, MissingPackageError
from satchel.runtime.module.layout import to_matrix
from satchel.runtime.weights import WeightRecord, digest

HINT = "export the bundle again, or fetch it again"
SHARED = "palette."
"""What names of constants begin with that every palette decodes itself by."""
FLOAT, UINT4, BFLOAT16 = 1, 21, 16
"""Element types of the ONNX format that need care."""
_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 6: "<i4", 7: "<i8", 10: "<f2", BFLOAT16: "<u2"}


@dataclass(frozen=True)
class _Stored:
    """A tensor as the file has it: element type, shape and raw bytes."""

    dtype: int
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> np.ndarray:
        """As numbers; uint4 and bfloat16 widened to a dtype that numpy has."""
        if self.dtype == UINT4:
            packed = np.frombuffer(self.data, np.uint8)
            return np.stack([packed & 15, packed >> 4], 1).reshape(-1)[: int(np.prod(self.shape))].reshape(self.shape)
        values = np.frombuffer(self.data, _DTYPES[self.dtype]).reshape(self.shape)
        if self.dtype == BFLOAT16:
            return (values.astype(np.uint32) << 16).view(np.float32)
        return values


class _Graph:
    """Initializers by name, nodes by output, and external data that is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.proto = _parse(path)
        self.tensors = {t.name: t for t in self.proto.graph.initializer}
        self.makers = {output: node for node in self.proto.graph.node for output in node.output if output}

    def stored(self, name: str) -> _Stored:
        """An initializer; FormatError when its bytes are missing or of the wrong number."""
        tensor = self.tensors[name]
        shape = tuple(tensor.dims)
        if tensor.data_type not in _DTYPES and tensor.data_type != UINT4:
            raise FormatError(
                f"ONNX: tensor {name} is of an unexpected type", got=tensor.data_type, wanted=sorted(_DTYPES)
            )
        size = _bytes(tensor.data_type, shape)
        data = self._external(tensor, size) if tensor.data_location == 1 else tensor.raw_data
        if len(data) != size:
            raise FormatError(f"ONNX: tensor {name} is cut short", got=len(data), wanted=f"{size} bytes", hint=HINT)
        return _Stored(tensor.data_type, shape, data)

    def _external(self, tensor: Any, size: int) -> bytes:
        entry = {e.key: e.value for e in tensor.external_data}
        location = entry.get("location", "")
        if not location or Path(location).name != location:
            raise FormatError(f"ONNX: tensor {tensor.name} lies outside the model's folder", got=location)
        try:
            with (self.folder / location).open("rb") as stream:
                stream.seek(int(entry.get("offset", "0")))
                return bytes(stream.read(size))
        except (OSError, ValueError) as error:
            raise FormatError(f"ONNX: tensor {tensor.name} cannot be read", got=error, hint=HINT) from error

    def sources(self, name: str) -> list[str]:
        """The initializers that a value is made of, in order."""
        if name in self.tensors:
            return [name]
        if name not in self.makers:
            raise FormatError(
                "ONNX: a weight that is not a constant", got=name, wanted="initializers and operators on them"
            )
        return [source for part in self.makers[name].input if part for source in self.sources(part)]

    def value(self, name: str) -> np.ndarray:
        """A constant value: an initializer, or what its operators make of initializers."""
        if name in self.tensors:
            return self.stored(name).array()
        self.sources(name)
        node = self.makers[name]
        if node.op_type not in _OPERATORS:
            raise FormatError("ONNX: an operator that weights do not use", got=node.op_type, wanted=sorted(_OPERATORS))
        return _OPERATORS[node.op_type]([self.value(part) for part in node.input], _attributes(node))


def read_weights(path: Path) -> Iterator[WeightRecord]:
    """The matrices of a model.onnx; arguments, order and errors as read_matrices has them."""
    return (record for record, _ in read_matrices(path))


def read_matrices(path: Path) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    """The matrices of a model.onnx and their values, float32 [rows, columns], in the order of the forward pass; a tied
    head once, as embed_tokens.

    Args:
        path: of model.onnx, its external data beside it.

    Raises:
        FormatError: for a file that is damaged, or not one of ours.
        MissingPackageError: without the onnx package.
    """
    graph = _Graph(path)
    seen: set[str] = set()
    counted: set[str] = set()
    for node in graph.proto.graph.node:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        names = metadata.get("satchel.names", "").split(",")
        if "satchel.names" not in metadata or set(names) <= seen:
            continue
        seen.update(names)
        try:
            rows = [int(count) for count in metadata["satchel.rows"].split(",")]
            yield from _records(graph, node, names, rows, counted)
        except (KeyError, IndexError, ValueError, RecursionError) as error:
            raise FormatError(f"ONNX: the weights {names} cannot be decoded", got=error, hint=HINT) from error
    if not seen:
        raise FormatError("ONNX: no weights that say which matrices they are", got=path.name, wanted="a Satchel model")


def _records(
    graph: _Graph, node: Any, names: Sequence[str], rows: Sequence[int], counted: set[str]
) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    values, operands = _decoded(graph, node) if node.op_type in ("Cast", "Mul") else _dequantized(graph, node)
    if sum(rows) != len(values) or len(rows) != len(names):
        raise FormatError(f"ONNX: the rows of {names}", got=list(rows), wanted=f"{len(values)} in all", hint=HINT)
    sources = [s for s in dict.fromkeys(s for operand in operands for s in graph.sources(operand)) if s not in counted]
    counted.update(sources)
    start = 0
    for name, count in zip(names, rows, strict=True):
        part = values[start : start + count]
        size = sum(_share(graph, source, name, count, len(values)) for source in sources)
        own = [source for source in sources if source.startswith(f"{name}.")]
        bits = _stored_bits(graph, node, own or sources, name, part.size)
        yield WeightRecord(name, (part.shape[0], part.shape[1]), bits, size, digest(part)), part
        start += count


def _share(graph: _Graph, source: str, name: str, rows: int, all_rows: int) -> int:
    """Bytes of an initializer that are this matrix's: all of its own, or its rows of a shared one."""
    tensor = graph.tensors[source]
    size = _bytes(tensor.data_type, tuple(tensor.dims))
    if source.startswith(f"{name}."):
        return size
    if source.startswith(SHARED):
        return 0
    if tensor.dims and tensor.dims[0] == all_rows:
        return size * rows // all_rows
    return 0  # another matrix's, or a shape


def _stored_bits(graph: _Graph, node: Any, sources: Sequence[str], name: str, count: int) -> int:
    """Bits of one code in the file: a palette's index has fewer than what the kernel sees."""
    index = [graph.tensors[source] for source in sources if source.startswith(f"{name}.index")]
    if index:
        return 8 * sum(_bytes(t.data_type, tuple(t.dims)) for t in index) // count
    types = [graph.tensors[source].data_type for source in sources]
    if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
        return _attributes(node).get("bits", 4)
    return np.dtype(_DTYPES[types[0]]).itemsize * 8


def _decoded(graph: _Graph, node: Any) -> tuple[np.ndarray, list[str]]:
    """The same of a node that gives a module's weight as it lies, fp32."""
    metadata = {entry.key: entry.value for entry in node.metadata_props}
    values = graph.value(node.output[0]).astype(np.float32)
    return to_matrix(values, metadata["satchel.form"], int(metadata["satchel.groups"])), list(node.input)


def _dequantized(graph: _Graph, node: Any) -> tuple[np.ndarray, list[str]]:
    """fp32 [rows, columns] of a node's matrix, and the names of the operands that it is made of."""
    inputs, attributes = list(node.input), _attributes(node)
    if node.op_type in ("Gather", "FusedMatMul"):
        operand = inputs[0] if node.op_type == "Gather" else inputs[1]
        return graph.value(operand).astype(np.float32), [operand]
    codes, scales = (inputs[1], inputs[2]) if node.op_type == "MatMulNBits" else (inputs[0], inputs[2])
    zero = inputs[3] if len(inputs) > 3 and inputs[3] else None
    operands = [codes, scales, *([zero] if zero else [])]
    scale = graph.value(scales)
    bits = attributes.get("bits", 4)
    code = _unpack(graph.value(codes).reshape(len(scale), -1), bits).astype(np.float32)
    zeros: np.ndarray | np.float32 = np.float32(2 ** (bits - 1))
    if zero:
        zeros = _unpack(graph.value(zero), bits)[:, : scale.shape[1]].astype(np.float32)[:, :, None]
    values = (code.reshape(len(scale), scale.shape[1], attributes["block_size"]) - zeros) * scale[:, :, None]
    offsets = {entry.key: entry.value for entry in node.metadata_props}.get("satchel.offsets")
    if offsets:
        values = (values.astype(np.float64) + graph.value(offsets)[:, :, None]).astype(np.float32)
        operands.append(offsets)
    return values.reshape(len(scale), -1), operands


def _unpack(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes; 4-bit ones from two a byte, low nibble first."""
    if bits == 8:
        return codes
    return np.stack([codes & 15, codes >> 4], -1).reshape(len(codes), -1)


def _bytes(dtype: int, shape: Sequence[int]) -> int:
    count = int(np.prod(shape)) if shape else 1
    return (count + 1) // 2 if dtype == UINT4 else count * np.dtype(_DTYPES[dtype]).itemsize


def _cast(values: np.ndarray, to: int) -> np.ndarray:
    return values.astype(_DTYPES[to])


def _exact(values: np.ndarray) -> np.ndarray:
    """Floats with twice the digits, so that one operation on two fp32 numbers rounds nothing."""
    return values.astype(np.float64) if values.dtype.kind == "f" else values


_OPERATORS: Mapping[str, Callable[[list[np.ndarray], dict[str, int]], np.ndarray]] = {
    "Add": lambda x, _: _exact(x[0]) + _exact(x[1]),
    "Cast": lambda x, a: _cast(x[0], a["to"]),
    "Concat": lambda x, a: np.concatenate(x, a["axis"]),
    "Expand": lambda x, _: np.broadcast_to(x[0], np.broadcast_shapes(x[0].shape, tuple(x[1]))),
    "Gather": lambda x, a: np.take(x[0], x[1], a.get("axis", 0)),
    "Mul": lambda x, _: _exact(x[0]) * _exact(x[1]),
    "Reshape": lambda x, _: x[0].reshape(tuple(x[1])),
}


def _attributes(node: Any) -> dict[str, int]:
    return {attribute.name: attribute.i for attribute in node.attribute}


def _parse(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("the onnx package is not installed", hint="pip install 'satchel[onnx]'") from error
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf and the file system each have their own
        raise FormatError(
            "ONNX: the model cannot be read", got=f"{type(error).__name__}: {error}", hint=HINT
        ) from error
