"""Writes a .pte file: the program's flatbuffer, then segments, each blob made only when its turn comes.

ExecuTorch's own serializer holds every byte in memory and gives each constant and each named blob its own place. Here
they stream, and a blob that is both (an embedding table that is also the head's weights) is stored once: its named
segment points into the constant segment. Layout of the header: executorch/schema/extended_header.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from satchel.export.formats.executorch_program import SLACK, Method, aligned
from satchel.export.ops.executorch import Delegate
from satchel.export.ops.executorch_tools import CompileSpec, program_to_flatbuffer, schema
from satchel.export.ops.xnnpack import Blob
from satchel.export.progress import Progress
from satchel.runtime.errors import FormatError

ALIGNMENT = 128
HEADER = struct.Struct("<4sIQQQ")
"""Magic, length of the header, size of the program with it, offset of the segments, and their size."""


@dataclass
class Layout:
    """Where each blob lies, counted from the first segment.

    Attributes:
        pieces: (offset, blob or payload) in the order of the file.
        segments: what the program's segment table says.
    """

    pieces: list[tuple[int, Blob | bytes]] = field(default_factory=list)
    segments: list[schema.DataSegment] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    end: int = 0

    def put(self, piece: Blob | bytes, alignment: int = ALIGNMENT) -> int:
        """Gives the piece the next aligned offset; a blob that has one already keeps it."""
        if isinstance(piece, Blob) and piece.key in self.places:
            return self.places[piece.key]
        offset = aligned(self.end, alignment)
        self.pieces.append((offset, piece))
        self.end = offset + (piece.size if isinstance(piece, Blob) else len(piece))
        if isinstance(piece, Blob):
            self.places[piece.key] = offset
        return offset

    def segment(self, offset: int, size: int) -> int:
        """Adds a row to the segment table; returns its number."""
        self.segments.append(schema.DataSegment(offset, size))
        return len(self.segments) - 1


def write_pte(
    path: Path, methods: Sequence[Method], metadata: list[schema.ExecutionPlan], progress: Progress
) -> None:  # fmt: skip
    """Writes the file. The methods' constants, their delegates' payloads and named blobs become segments."""
    layout, offsets = Layout(), [0]
    for method in methods:
        method.number_constants(len(offsets))
        offsets += [layout.put(tensor.blob) for tensor in method.constants if tensor.blob is not None]
    layout.end += SLACK
    constants = schema.SubsegmentOffsets(layout.segment(0, layout.end), offsets)
    for method in methods:
        method.plan.delegates = [_delegate(layout, delegate) for delegate in method.delegates]
    delegates = [delegate for method in methods for delegate in method.delegates]
    blobs = {key: blob for delegate in delegates for key, blob in delegate.named().items()}
    named = [schema.NamedData(key, layout.segment(layout.put(blob), blob.size)) for key, blob in blobs.items()]
    program = schema.Program(
        version=0,
        execution_plan=[*(method.plan for method in methods), *metadata],
        constant_buffer=[],
        backend_delegate_data=[],
        segments=layout.segments,
        constant_segment=constants,
        named_data=named,
    )
    with path.open("wb") as file:
        _write(file, _with_header(program, layout.end), layout, progress)


def _delegate(layout: Layout, delegate: Delegate) -> schema.BackendDelegate:
    first, *rest = delegate.payload()
    offset = layout.put(first)
    for piece in rest:
        layout.put(piece, alignment=1)
    segment = layout.segment(offset, layout.end - offset)
    reference = schema.BackendDelegateDataReference(schema.DataLocation.SEGMENT, segment)
    specs = [CompileSpec(key, value) for key, value in delegate.specs.items()]
    return schema.BackendDelegate(delegate.backend, reference, specs)


def _with_header(program: schema.Program, segments_size: int) -> bytes:
    """The flatbuffer with the extended header after its first eight bytes, padded to the first segment."""
    flatbuffer = program_to_flatbuffer(program, constant_tensor_alignment=None, delegate_alignment=None)
    room = aligned(HEADER.size, flatbuffer.max_alignment)
    size = room + len(flatbuffer.data)
    base = aligned(size, ALIGNMENT)
    header = HEADER.pack(b"eh00", HEADER.size, size, base, segments_size).ljust(room, b"\0")
    root = int.from_bytes(flatbuffer.data[:4], "little") + room
    data = root.to_bytes(4, "little") + flatbuffer.data[4:8] + header + flatbuffer.data[8:]
    return bytes(data).ljust(base, b"\0")


def _write(file: BinaryIO, program: bytes, layout: Layout, progress: Progress) -> None:
    file.write(program)
    for done, (offset, piece) in enumerate(layout.pieces):
        progress("Writing ExecuTorch", done, len(layout.pieces))
        file.write(b"\0" * (len(program) + offset - file.tell()))
        file.write(_bytes(piece) if isinstance(piece, Blob) else piece)
    file.write(b"\0" * (len(program) + layout.end - file.tell()))
    progress("Writing ExecuTorch", len(layout.pieces), len(layout.pieces))


def _bytes(blob: Blob) -> memoryview:
    data = np.ascontiguousarray(blob.load())
    if data.nbytes != blob.size:
        raise FormatError(
            "a weight changed while it was written", got=f"{blob.key} of {data.nbytes} bytes", wanted=blob.size
        )
    return data.reshape(-1).view(np.uint8).data
