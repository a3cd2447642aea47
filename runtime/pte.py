"""A .pte file opened for reading: the program, its segments, and a Core ML package inside a delegate's payload."""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError, MissingPackageError
from satchel.runtime.quiet import quiet_imports

HEADER = struct.Struct("<4sIQQQ")
"""After the flatbuffer's first 8 bytes: magic, length, size of the program, offset and size of the segments."""
LONGEST_DIRECTORY = 2**16
"""Bytes in which the list of files of a flattened package is looked for."""


@dataclass(frozen=True)
class Pte:
    """The parsed program (executorch.exir.schema.Program), and its segments' bytes in the file."""

    program: Any
    data: mmap.mmap
    base: int

    @property
    def plan(self) -> Any:
        """The first method that calls a delegate."""
        for plan in self.program.execution_plan:
            if plan.delegates:
                return plan
        raise broken("a program that calls no delegate")

    @property
    def plans(self) -> list[Any]:
        """Every method that computes something; the others answer with numbers."""
        return [plan for plan in self.program.execution_plan if any(chain.instructions for chain in plan.chains)]

    def method(self, name: str) -> Any:
        """A method by name."""
        for plan in self.program.execution_plan:
            if plan.name == name and plan.delegates:
                return plan
        raise broken(f"a program without the method {name!r}")

    def segment(self, number: int) -> tuple[int, int]:
        """(first byte, end) in the file."""
        row = self.program.segments[number]
        first = self.base + row.offset
        if first + row.size > len(self.data):
            raise broken(f"segment {number} ends at {first + row.size}, the file at {len(self.data)}")
        return first, first + row.size

    def payload(self, delegate: Any) -> bytes:
        """What the delegate's backend is given."""
        first, end = self.segment(delegate.processed.index)
        return self.data[first:end]

    def named(self, key: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A named blob as an array."""
        number = next((row.segment_index for row in self.program.named_data if row.key == key), None)
        if number is None:
            raise broken(f"nothing is named {key}")
        return self._array(*self.segment(number), dtype, shape)

    def constant(self, number: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """A constant tensor of the program as an array."""
        first, end = self.segment(self.program.constant_segment.segment_index)
        return self._array(first + self.program.constant_segment.offsets[number], end, dtype, shape)

    def constant_of(self, sha: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """The constant tensor of the program whose bytes have this sha256."""
        first, end = self.segment(self.program.constant_segment.segment_index)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        for offset in self.program.constant_segment.offsets[1:]:
            data = self.data[first + offset : min(first + offset + size, end)]
            if hashlib.sha256(data).hexdigest() == sha:
                return np.frombuffer(data, dtype).reshape(shape)
        raise broken(f"no constant {sha}")

    def text_method(self, name: str) -> str | None:
        """What a constant method gives, where it is a text; None where there is no such method."""
        for plan in self.program.execution_plan:
            if plan.name == name:
                value = getattr(plan.values[plan.outputs[0]].val, "string_val", None)
                return value if isinstance(value, str) else None
        return None

    def _array(self, first: int, end: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if first + size > end:
            raise broken(f"{shape} of {dtype} in {end - first} bytes")
        return np.frombuffer(self.data[first : first + size], dtype).reshape(shape)  # a copy: the map can be closed


def broken(got: str) -> FormatError:
    """The error of a file that is not what it should be."""
    return FormatError(
        "not a whole ExecuTorch program of this exporter", got=got, wanted="a .pte file", hint="export it again"
    )


@contextmanager
def open_pte(path: Path) -> Iterator[Pte]:
    """Opens a .pte file.

    Raises:
        FormatError: for a file that is truncated, or not a .pte.
        MissingPackageError: without executorch, whose schema is needed to read it.
    """
    if path.stat().st_size < 8 + HEADER.size:
        raise broken(f"{path.stat().st_size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield _parse(data)


def _parse(data: mmap.mmap) -> Pte:
    magic, _, size, base, segments = HEADER.unpack_from(data, 8)
    if magic != b"eh00" or data[4:6] != b"ET":
        raise broken("no header of ExecuTorch's")
    if base + segments > len(data) or size > base:
        raise broken(f"{len(data)} bytes where the header promises {base + segments}")
    try:
        with quiet_imports():
            from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program
    except ImportError as error:
        hint = "pip install 'satchel[export]'"
        raise MissingPackageError("executorch is not installed", got=str(error), hint=hint) from error
    try:
        return Pte(_flatbuffer_to_program(data[:size]), data, base)
    except Exception as error:  # flatbuffers raises whatever a wrong offset leads to
        raise broken(f"a program that cannot be parsed ({error})") from error


def unpack_coreml(payload: bytes, folder: Path) -> Path:
    """Writes the files of the Core ML delegate's payload into a folder; returns the path of the .mlpackage.

    The payload is the files' bytes, one after the other, and the list of them as JSON, back to front at the end
    (executorch/backends/apple/coreml/runtime/inmemoryfs).
    """
    tail = payload[: -LONGEST_DIRECTORY - 1 : -1].decode("latin-1")
    try:
        nodes = json.JSONDecoder().raw_decode(tail)[0]["nodes"]
        _write_node(nodes, len(nodes) - 1, payload, folder)
    except (LookupError, ValueError, TypeError) as error:
        raise broken(f"a Core ML payload without its list of files ({error})") from error
    packages = sorted(folder.glob("*.mlpackage"))
    if not packages:
        raise broken("a Core ML payload without a package")
    return packages[0]


def _write_node(nodes: list[dict[str, Any]], number: int, payload: bytes, path: Path) -> None:
    node = nodes[number]
    if node["kind"] == 0:
        first, size = node["dataRegion"]["offset"], node["dataRegion"]["size"]
        path.write_bytes(payload[first : first + size])
        return
    path.mkdir(exist_ok=True)
    for name, child in node["children"].items():
        if child >= number or Path(name).name != name:
            raise ValueError(f"a file named {name!r}")
        _write_node(nodes, child, payload, path / name)
