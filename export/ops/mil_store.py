"""Weights on their way into `weight.bin`: written at once, so that only one matrix is in memory at a time.

The program is built with stand-ins, zeros of the right shape that take no memory, which carry the key of the blob they
stand for. No pass may run over such a program: one that compares or folds constants would merge stand-ins that are
equal only because they are all zeros.

The blob file (coremltools' MIL blob storage, version 2): a 64-byte file header that starts with the uint32 count of
blobs; then for each blob, aligned to 64 bytes, a 64-byte header (uint32 0xDEADBEEF, uint32 dtype, uint64 bytes, uint64
offset of the data in the file) and its data. A value in the program names the offset of the header.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from satchel.export.ops.mil_builder import BlobStorageWriter, Var, mb, types

ALIGNMENT = 64
INLINE = 10
"""coremltools writes smaller constants into the program itself, so these must be real and not stand-ins."""

_SUB_BYTE: dict[int, np.dtype] = {
    1: types.np_uint1_dtype,
    2: types.np_uint2_dtype,
    3: types.np_uint3_dtype,
    4: types.np_uint4_dtype,
    6: types.np_uint6_dtype,
}


_WRITERS = {
    "float16": "write_fp16_data",
    "float32": "write_float_data",
    "int8": "write_int8_data",
    "int16": "write_int16_data",
    "int32": "write_int32_data",
    "uint8": "write_uint8_data",
    "uint16": "write_uint16_data",
    "uint32": "write_uint32_data",
}
"""numpy's name of a dtype -> how coremltools writes it."""


@dataclass(frozen=True)
class _Alias:
    """A blob that is part of another one's data: `start` and `size` in bytes."""

    source: int
    start: int
    size: int


class BlobStore:
    """The blobs of one `weight.bin`, by key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer = BlobStorageWriter(str(path))
        self._offsets: dict[str, int] = {}
        self._inline: dict[str, np.ndarray] = {}
        self._aliases: dict[str, _Alias] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._offsets or key in self._inline or key in self._aliases

    def offset(self, key: str) -> int:
        """Where the header of the blob `key` lies in the file; complete after `close`."""
        return self._offsets[key]

    def put(self, key: str, array: np.ndarray) -> None:
        """Writes an array of one of the dtypes in _WRITERS."""
        array = np.ascontiguousarray(array)
        if array.size < INLINE:
            self._inline[key] = array
            return
        flat = array.reshape(-1)
        write = getattr(self._writer, _WRITERS[array.dtype.name])
        self._offsets[key] = write(flat.view(np.uint16) if array.dtype == np.float16 else flat)

    def put_codes(self, key: str, codes: np.ndarray, bits: int, signed: bool = False) -> None:
        """Writes codes of less than 8 bits, packed from the low bits up.

        Args:
            key: of the blob.
            codes: uint8, or int8 where signed; one code an element.
            bits: 1, 2, 3, 4, 6 or 8.
            signed: int4 or int8 in two's complement.
        """
        flat = np.ascontiguousarray(codes).reshape(-1)
        if codes.size < INLINE:
            self._inline[key] = codes.astype(code_dtype(bits, signed))
            return
        kind = f"int{bits}" if signed else f"uint{bits}"
        self._offsets[key] = getattr(self._writer, f"write_{kind}_data")(flat)

    def alias(self, key: str, source: str, start: int, size: int) -> None:
        """Lets `key` be `size` bytes of the blob `source` from byte `start`, which must be a multiple of ALIGNMENT."""
        assert start % ALIGNMENT == 0, "blob data must be aligned"
        self._aliases[key] = _Alias(self._offsets[source], start, size)

    def const(self, key: str, shape: Sequence[int], dtype: np.dtype | type, name: str | None = None) -> Var:
        """A const of the current MIL function that stands for the blob `key`."""
        if key in self._inline:
            value = self._inline[key].reshape(tuple(shape))
        else:
            value = np.broadcast_to(np.zeros(1, dtype), tuple(shape))
        var = mb.const(val=value) if name is None else mb.const(val=value, name=name)
        var.op.weight_id = key
        return var

    def close(self) -> None:
        """Ends the file: the headers of aliases come last, since they need no data of their own."""
        del self._writer
        with self.path.open("r+b") as file:
            for key, alias in self._aliases.items():
                self._offsets[key] = _append_header(file, alias)
            file.seek(0)
            (count,) = struct.unpack("<I", file.read(4))
            file.seek(0)
            file.write(struct.pack("<I", count + len(self._aliases)))


def code_dtype(bits: int, signed: bool = False) -> np.dtype:
    """numpy's dtype of codes, marked as coremltools marks those of less than a byte."""
    if signed:
        two: np.dtype = types.np_int4_dtype if bits == 4 else np.dtype(np.int8)
        return two
    dtype: np.dtype = np.dtype(np.uint8) if bits == 8 else _SUB_BYTE[bits]
    return dtype


def _append_header(file: BinaryIO, alias: _Alias) -> int:
    """Writes the header of an alias at the end of the file, and returns its offset."""
    file.seek(alias.source)
    sentinel, dtype, _, data = struct.unpack("<IIQQ", file.read(24))
    end = file.seek(0, 2)
    file.write(bytes(-end % ALIGNMENT))
    offset = end + -end % ALIGNMENT
    header = struct.pack("<IIQQ", sentinel, dtype, alias.size, data + alias.start)
    file.write(header + bytes(ALIGNMENT - len(header)))
    return offset
