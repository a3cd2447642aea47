"""Weights read back out of a .pte file.

Codes and scales of each linear are named blobs, under the canonical name and `<name>.scale`; what they mean is read
from the XNNPACK graphs that use them. The embedding is a constant of the program, found through its kernel.
"""

from __future__ import annotations

import json
import mmap
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError, MissingPackageError
from satchel.runtime.weights import WeightRecord, digest

HEADER = struct.Struct("<4sIQQQ")
"""After the flatbuffer's first 8 bytes: magic, length, size of the program, offset and size of the segments."""
EMBEDDINGS = {"quantized_decomposed::embedding_byte": True, "aten::embedding": False}
"""Operators that read the embedding table, and whether a scale a row follows it."""
OWN = "constant."
"""Names of blobs that the exporter made up (a row of ones over the width, a permutation): no weights."""


@dataclass(frozen=True)
class Pte:
    """A .pte file: the parsed program, and its segments' bytes in the file."""

    program: Any
    data: mmap.mmap
    base: int

    def segment(self, number: int) -> tuple[int, int]:
        """(first byte, end) in the file."""
        row = self.program.segments[number]
        first = self.base + row.offset
        if first + row.size > len(self.data):
            raise _broken(f"segment {number} ends at {first + row.size}, the file at {len(self.data)}")
        return first, first + row.size

    def named(self, key: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A named blob as an array."""
        number = next((row.segment_index for row in self.program.named_data if row.key == key), None)
        if number is None:
            raise _broken(f"nothing is named {key}")
        return self._array(*self.segment(number), dtype, shape)

    def constant(self, number: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A constant tensor of the program as an array."""
        first, end = self.segment(self.program.constant_segment.segment_index)
        return self._array(first + self.program.constant_segment.offsets[number], end, dtype, shape)

    def _array(self, first: int, end: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if first + size > end:
            raise _broken(f"{shape} of {dtype} in {end - first} bytes")
        return np.frombuffer(self.data[first : first + size], dtype).reshape(shape)  # a copy: the map can be closed


def read_weights(path: Path) -> Iterator[WeightRecord]:
    """Every matrix of the file, in the order of the forward pass; a head that is the embedding is not told again.

    Raises:
        FormatError: for a file that is not a whole .pte, or not one of this exporter's.
        MissingPackageError: without executorch, whose schema is needed to read it.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pte = _open(data)
        seen = set()
        for name, values, bits, size in _matrices(pte):
            if name not in seen:
                seen.add(name)
                yield WeightRecord(name, (values.shape[0], values.shape[1]), bits, size, digest(values))


Found = tuple[str, np.ndarray, int, int]
"""Name, values float32 [rows, columns], bits of a code, bytes in the file."""


def _broken(got: str) -> FormatError:
    return FormatError(
        "not a whole ExecuTorch program of this exporter", got=got, wanted="a .pte file", hint="export it again"
    )


def _tools() -> tuple[Callable[[bytes], Any], Callable[[bytes], dict[str, Any]]]:
    """ExecuTorch's readers of a program and of an XNNPACK graph."""
    try:
        from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
    except ImportError as error:
        raise MissingPackageError(
            "executorch is not installed", got=str(error), hint="pip install 'satchel[export]'"
        ) from error
    return _flatbuffer_to_program, _xnn_graph


def _open(data: mmap.mmap) -> Pte:
    magic, _, size, base, segments = HEADER.unpack_from(data, 8) if len(data) >= 48 else (b"", 0, 0, 0, 0)
    if magic != b"eh00" or data[4:6] != b"ET":
        raise _broken("no header of ExecuTorch's")
    if base + segments > len(data) or size > base:
        raise _broken(f"{len(data)} bytes where the header promises {base + segments}")
    parse, _ = _tools()
    try:
        return Pte(parse(data[:size]), data, base)
    except Exception as error:  # flatbuffers raises whatever a wrong offset leads to
        raise _broken(f"a program that cannot be parsed ({error})") from error


def _matrices(pte: Pte) -> Iterator[Found]:
    try:
        plan = next(plan for plan in pte.program.execution_plan if plan.delegates)
        yield from _embeddings(pte, plan)
        for delegate in plan.delegates:
            first, end = pte.segment(delegate.processed.index)
            yield from _linears(pte, _tools()[1](pte.data[first:end]))
    except (LookupError, StopIteration, AttributeError, ValueError) as error:
        raise _broken(f"a program whose parts do not fit ({error})") from error


def _embeddings(pte: Pte, plan: Any) -> Iterator[Found]:
    for call in (i.instr_args for i in plan.chains[0].instructions if hasattr(i.instr_args, "op_index")):
        operator = plan.operators[call.op_index].name
        if operator in EMBEDDINGS:
            table = plan.values[call.args[0]].val
            shape = (table.sizes[0], table.sizes[1])
            if not EMBEDDINGS[operator]:
                values = pte.constant(table.data_buffer_idx, "<f4", shape)
                yield "embed_tokens", values, 32, values.nbytes
                continue
            codes = pte.constant(table.data_buffer_idx, "i1", shape)
            scales = pte.constant(plan.values[call.args[1]].val.data_buffer_idx, "<f4", shape[:1])
            yield "embed_tokens", codes * scales[:, None], 8, codes.nbytes + scales.nbytes


def _linears(pte: Pte, graph: dict[str, Any]) -> Iterator[Found]:
    values = {_tensor(v["xvalue_union"])["id_out"]: v["xvalue_union"] for v in graph["xvalues"]}
    names = [constant.get("named_key", "") for constant in graph["constant_data"]]
    for node in (n["xnode_union"] for n in graph["xnodes"] if n["xnode_union_type"] == "XNNFullyConnected"):
        weights = values[node["filter_id"]]
        tensor = _tensor(weights)
        name = names[tensor["constant_buffer_idx"]]
        if not name.startswith(OWN):
            shape = (tensor["dims"][0], tensor["dims"][1])
            yield (name, *_READERS[tensor["datatype"]](pte, name, shape, weights, names))


def _tensor(value: dict[str, Any]) -> dict[str, Any]:
    return dict(value.get("tensor_value", value))


Read = tuple[np.ndarray, int, int]


def _fp32(pte: Pte, name: str, shape: tuple[int, int], weights: dict[str, Any], names: list[str]) -> Read:
    values = pte.named(name, "<f4", shape)
    return values, 32, values.nbytes


def _int8(pte: Pte, name: str, shape: tuple[int, int], weights: dict[str, Any], names: list[str]) -> Read:
    codes = pte.named(name, "i1", shape)
    scales = pte.named(names[weights["quant_params"]["scale_buffer_idx"]], "<f4", shape[:1])
    return codes * scales[:, None], 8, codes.nbytes + scales.nbytes


def _int4(pte: Pte, name: str, shape: tuple[int, int], weights: dict[str, Any], names: list[str]) -> Read:
    (rows, columns), block = shape, weights["quant_params"]["group_size"]
    packed = pte.named(name, "u1", (rows, columns // 2))
    stored = pte.named(names[weights["quant_params"]["scale_buffer_idx"]], "<u2", (rows, columns // block))
    codes = np.stack((packed & 15, packed >> 4), axis=-1).reshape(rows, columns // block, block)
    scales = (stored.astype(np.uint32) << 16).view(np.float32)
    values = (codes.astype(np.float32) - 8) * scales[:, :, None]
    return values.reshape(shape), 4, packed.nbytes + stored.nbytes


_READERS: dict[str, Callable[[Pte, str, tuple[int, int], dict[str, Any], list[str]], Read]] = {
    "xnn_datatype_fp32": _fp32,
    "xnn_datatype_qcint8": _int8,
    "xnn_datatype_qbint4": _int4,
}


def _xnn_graph(payload: bytes) -> dict[str, Any]:
    """The XNNPACK graph of a delegate's payload, by ExecuTorch's schema and its own flatc."""
    import importlib.resources

    import executorch.backends.xnnpack.serialization as serialization
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    offset, size = struct.unpack_from("<II", payload, 10)
    with tempfile.TemporaryDirectory() as folder:
        schema, binary = Path(folder, "schema.fbs"), Path(folder, "graph.bin")
        schema.write_bytes(importlib.resources.files(serialization).joinpath("schema.fbs").read_bytes())
        binary.write_bytes(payload[offset : offset + size])
        _flatc_decompile(folder, str(schema), str(binary))
        return dict(json.loads(Path(folder, "graph.json").read_bytes()))
