"""The weight file of a package: a header, then pairs of metadata and data, everything at multiples of 64 bytes.

    header     uint32 count, uint32 version (2), then zeros, 64 bytes
    metadata   uint32 sentinel 0xDEADBEEF, uint32 element type, uint64 bytes, uint64 offset of the data,
               uint64 unused bits at the end, then zeros, 64 bytes

A value in the program names the offset of a metadata block. The file is mapped, not read.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.dtypes import BY_BLOB, DType, unpack

SENTINEL = 0xDEADBEEF
VERSION = 2
BLOCK = 64
HEADER = struct.Struct("<II")
METADATA = struct.Struct("<IIQQQ")


class BlobFile:
    """A mapped weight file.

    Args:
        path: of the file.

    Raises FormatError when it is missing, too short, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():  # a pipe would be waited for
            raise FormatError(f"weight file {path.name}", got="no plain file", hint="the package is incomplete")
        try:
            self._data = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise FormatError(f"weight file {path.name}", got=error, hint="the package is incomplete") from error
        if self._data.size < BLOCK:
            raise self._bad("weight file", got=f"{self._data.size} bytes", wanted=f"at least {BLOCK}")
        self.count, version = HEADER.unpack(self._data[: HEADER.size].tobytes())
        if version != VERSION:
            raise self._bad("version of the weight file", got=version, wanted=VERSION)

    def raw(self, offset: int) -> tuple[DType, np.ndarray, int]:
        """The blob whose metadata is at `offset`.

        Returns:
            (element type, uint8 bytes as stored, number of elements).
        """
        if offset % BLOCK or offset + BLOCK > self._data.size:
            raise self._bad("offset of a blob", got=offset, wanted=f"a multiple of {BLOCK} below {self._data.size}")
        fields = METADATA.unpack(self._data[offset : offset + METADATA.size].tobytes())
        sentinel, code, size, start, padding = fields
        if sentinel != SENTINEL:
            raise self._bad(f"sentinel of the blob at {offset}", got=hex(sentinel), wanted=hex(SENTINEL))
        if code not in BY_BLOB:
            raise self._bad(f"element type of the blob at {offset}", got=code, wanted=sorted(BY_BLOB))
        if start + size > self._data.size or padding >= 8 or padding > size * 8:
            raise self._bad(f"extent of the blob at {offset}", got=f"{size} bytes at {start}", wanted="within the file")
        dtype = BY_BLOB[code]
        return dtype, self._data[start : start + size].view(np.ndarray), (size * 8 - padding) // dtype.bits

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return int(self._data.size)

    def extent(self, offset: int) -> tuple[int, int]:
        """(first byte, bytes) of the data of the blob whose metadata is at `offset`; FormatError as from raw()."""
        self.raw(offset)
        _, _, size, start, _ = METADATA.unpack(self._data[offset : offset + METADATA.size].tobytes())
        return start, size

    def data(self, start: int, size: int) -> np.ndarray:
        """`size` bytes of the file from `start` on, uint8, not copied."""
        return self._data[start : start + size].view(np.ndarray)

    def array(self, offset: int, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        """The blob at `offset` as an array in its storage type; FormatError unless it has that type and shape."""
        found, raw, count = self.raw(offset)
        wanted = int(np.prod(shape, dtype=object)) if shape else 1
        if found is not dtype or count != wanted:
            raise self._bad(f"blob at {offset}", got=f"{count} of {found.name}", wanted=f"{wanted} of {dtype.name}")
        return unpack(raw, dtype, count).reshape(shape)

    def _bad(self, what: str, *, got: object, wanted: object) -> FormatError:
        hint = f"{self.path.name} is truncated or altered: copy the package again"
        return FormatError(what, got=got, wanted=wanted, hint=hint)
