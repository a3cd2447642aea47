"""The weight file: equal to coremltools' reader on every type, and strict about what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.blobs import BlobFile
from satchel.runtime.mil.dtypes import BY_NAME

# our name -> coremltools' names of its functions, and the values that the type holds
WHOLE = {
    "float16": ("fp16", np.uint16), "float32": ("float", np.float32), "uint8": ("uint8", np.uint8),
    "int8": ("int8", np.int8), "int16": ("int16", np.int16), "uint16": ("uint16", np.uint16),
    "int32": ("int32", np.int32), "uint32": ("uint32", np.uint32),
}  # fmt: skip
PACKED = {"uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6, "int4": 4}


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 200), st.integers(0, 99))
def test_every_type_reads_as_coremltools_reads_it(
    tmp_path_factory: pytest.TempPathFactory, size: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("blob") / "weight.bin"
    rng = np.random.default_rng(seed)
    writer, offsets = _BlobStorageWriter(str(path)), {}
    for name, (their, dtype) in WHOLE.items():
        values = rng.integers(0, 100, size).astype(dtype)
        offsets[name] = getattr(writer, f"write_{their}_data")(values)
    for name, bits in PACKED.items():
        low = -8 if name == "int4" else 0
        values = rng.integers(low, low + 2**bits, size).astype(np.int8 if name == "int4" else np.uint8)
        offsets[name] = getattr(writer, f"write_{name}_data")(values)
    del writer
    reader, ours = _BlobStorageReader(str(path)), BlobFile(path)
    assert ours.count == len(offsets)
    for name, offset in offsets.items():
        want = np.asarray(getattr(reader, f"read_{WHOLE.get(name, (name,))[0]}_data")(offset))
        have = ours.array(offset, BY_NAME[name], (size,))
        np.testing.assert_array_equal(have.view(np.uint16) if name == "float16" else have, want, err_msg=name)


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, int]:
    """(a weight file with one blob of 100 floats, the blob's offset)."""
    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    offset = writer.write_float_data(np.arange(100, dtype=np.float32))
    del writer
    return path, offset


def overwrite(path: Path, at: int, content: bytes) -> None:
    """Changes bytes of a file."""
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("at", "content", "message"),
    [
        (0, b"", ""),
        (64, b"\0\0\0\0", "sentinel"),
        (68, (99).to_bytes(4, "little"), "element type"),
        (68, (4).to_bytes(4, "little"), "100 of float32"),
        (72, (10**9).to_bytes(8, "little"), "extent"),
        (80, (10**12).to_bytes(8, "little"), "extent"),
        (80, (2**64 - 64).to_bytes(8, "little"), "extent"),
        (4, (7).to_bytes(4, "little"), "version"),
    ],
)
def test_altered_files_are_refused_by_what_is_wrong(
    blob: tuple[Path, int], at: int, content: bytes, message: str
) -> None:
    path, offset = blob
    overwrite(path, at, content)
    if not message:
        assert BlobFile(path).array(offset, BY_NAME["float32"], (10, 10))[3, 4] == 34
        return
    with pytest.raises(FormatError, match=message):
        BlobFile(path).array(offset, BY_NAME["float32"], (100,))


def test_truncated_missing_and_misplaced(blob: tuple[Path, int], tmp_path: Path) -> None:
    path, offset = blob
    for wrong in (offset + 1, 10**9 * 64, 64 * 1000):
        with pytest.raises(FormatError, match="offset of a blob"):
            BlobFile(path).array(wrong, BY_NAME["float32"], (100,))
    with pytest.raises(FormatError, match="100 of float32"):
        BlobFile(path).array(offset, BY_NAME["float32"], (101,))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(FormatError, match="extent"):
        BlobFile(path).array(offset, BY_NAME["float32"], (100,))
    path.write_bytes(b"short")
    with pytest.raises(FormatError, match="weight file"):
        BlobFile(path)
    with pytest.raises(FormatError, match=r"weight file absent\.bin"):
        BlobFile(tmp_path / "absent.bin")
