"""A GGUF file: F32, F16, BF16, Q8_0, Q4_0 to Q5_1, Q4_K to Q6_K and whatever else gguf-py can decode."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import QuantError, dequantize

from satchel.export.checkpoint.base import Checkpoint
from satchel.export.checkpoint.gguf_config import FACTORS, make_config
from satchel.export.checkpoint.gguf_header import TensorEntry, read_header
from satchel.runtime.errors import CheckpointError

CHUNK = 1 << 20  # values decoded at a time, so that the blocks' intermediates stay small


class GgufCheckpoint(Checkpoint):
    """Tensors of a GGUF file, under their GGUF names and with llama.cpp's order of rows."""

    kind = "gguf"

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            CheckpointError: it is missing, truncated, not GGUF, or one of several parts.
        """
        self.path, self.files = path, [path]
        self._data = _map(path)
        header = read_header(self._data, path.name)
        self.metadata = header.metadata
        factors = {n: self._factors(n, e) for n, e in header.tensors.items() if n in FACTORS}
        self._entries = {n: e for n, e in header.tensors.items() if n not in factors}
        _check_parts(header.metadata)
        self.config = make_config(header, factors)
        self.generation_config = {}

    def names(self) -> list[str]:  # noqa: D102
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:  # noqa: D102
        return self._entries[name].shape

    def blocks(self, name: str) -> tuple[str, np.ndarray]:
        """How a tensor is stored, such as "Q4_1", and its bytes as the file has them, uint8 [rows, bytes of a row]."""
        entry = self._entries[name]
        raw = np.frombuffer(self._data, np.uint8, entry.bytes, entry.offset)
        return entry.type.name, raw.reshape(entry.shape[0], -1)

    def _read(self, name: str, rows: slice) -> np.ndarray:
        return self._decode(name, self._entries[name], rows)

    def _decode(self, name: str, entry: TensorEntry, rows: slice) -> np.ndarray:
        raw = np.frombuffer(self._data, np.uint8, entry.bytes, entry.offset)
        if len(entry.shape) == 1:
            return _dequantize(name, raw, entry.type)[rows]
        raw = raw.reshape(entry.shape[0], -1)[rows]
        out = np.empty((raw.shape[0], *entry.shape[1:]), np.float32)
        step = max(1, CHUNK // max(1, int(np.prod(entry.shape[1:]))))
        for start in range(0, raw.shape[0], step):
            part = slice(start, start + step)
            out[part] = _dequantize(name, raw[part], entry.type).reshape(out[part].shape)
        self._release(entry)
        return out

    def _release(self, entry: TensorEntry) -> None:
        """Lets the system take back the pages of a tensor; what stays mapped would count as this process's memory."""
        if hasattr(mmap, "MADV_DONTNEED"):
            start = entry.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._data.madvise(mmap.MADV_DONTNEED, start, entry.offset + entry.bytes - start)

    def _factors(self, name: str, entry: TensorEntry) -> list[float]:
        return [float(f) for f in self._decode(name, entry, slice(None))]

    def _about(self) -> tuple[str, str, str]:
        author = self.metadata.get("general.author") or self.metadata.get("general.organization") or ""
        name = self.metadata.get("general.license") or self.metadata.get("general.license.name") or ""
        return str(author), str(name), ""


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise CheckpointError(f"{path.name} cannot be opened", got=error, wanted="a GGUF file") from None


def _check_parts(metadata: Mapping[str, Any]) -> None:
    if metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            "the GGUF file is one of several parts",
            got=metadata["split.count"],
            wanted="one file",
            hint="join them with llama.cpp's llama-gguf-split --merge",
        )


def _dequantize(name: str, raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    try:
        return np.asarray(dequantize(raw, kind))
    except (NotImplementedError, QuantError, ValueError) as error:
        raise CheckpointError(
            f"'{name}' is stored as {kind.name}, which cannot be decoded", got=error, wanted="Q4_0, Q8_0, F16, ..."
        ) from None
