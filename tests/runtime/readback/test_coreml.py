"""Weights come back out of a Core ML package bit for bit, by their canonical names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from coreml_caller import INFO, coreml_plan
from tiny_llama import MemoryWeights, tiny_llama, weights_of

from satchel.export.formats import coreml
from satchel.export.palettize.tensors import Matrix, PalettizedTensor
from satchel.runtime.errors import FormatError
from satchel.runtime.mil.blobs import METADATA
from satchel.runtime.readback.coreml import read_weights

SCHEMES = ("fp32", "fp16", "palette", "palette-rows16", "palette-mixed", "palette-mixed-rows16", "int8", "int4")
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


def written(folder: Path, scheme: str, shape: dict[str, Any], **roles: Any) -> tuple[Path, Any, MemoryWeights]:
    """(the package, the configuration, the weights it was written from)."""
    reference, config = tiny_llama(**shape)
    weights = weights_of(reference, config, scheme)
    return folder / coreml.write(folder, weights, config, coreml_plan(**roles), INFO).path, config, weights


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("roles", [{"layout": "channels_first"}, {"layout": "plain", "lm_head": "whole"}])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_come_back_bit_for_bit(tmp_path: Path, scheme: str, roles: dict[str, str], tied: bool) -> None:
    cache = "io" if scheme == "fp32" else "state"
    path, config, weights = written(tmp_path, scheme, {"tied": tied, "bias": not tied}, cache=cache, **roles)
    records = {record.name: record for record in read_weights(path)}
    assert {name: record.shape for name, record in records.items()} == config.matrix_shapes()
    assert next(iter(records)) == "embed_tokens"
    for name, record in records.items():
        assert record.sha256 == weights.matrix(name).digest(), name
        assert record.bits == weights.matrix(name).bits, name
        codes = record.shape[0] * record.shape[1] * record.bits // 8
        assert codes <= record.bytes <= codes * 1.25 + 2 * record.shape[0] + luts(weights.matrix(name)), name


def luts(matrix: Matrix) -> int:
    """Bytes of a palette's LUTs, which a program of fp32 would hold in fp32."""
    return 4 * matrix.lut.size if isinstance(matrix, PalettizedTensor) else 0


@pytest.mark.parametrize("target", ["iOS16", "iOS17"])
@pytest.mark.parametrize("scheme", ["palette", "palette-mixed", "int8", "fp16"])
def test_packages_before_ios18(tmp_path: Path, scheme: str, target: str) -> None:
    path, config, weights = written(tmp_path, scheme, {}, target=target, prefill=1)
    records = {r.name: r for r in read_weights(path)}
    assert set(records) == set(config.matrix_shapes())
    for name, record in records.items():
        bits = weights.matrix(name).bits
        stored = 4 if bits == 3 else bits  # indices of 3 bits came with iOS18
        assert (record.sha256, record.bits) == (weights.matrix(name).digest(), stored), name


@pytest.mark.parametrize("tied_head", ["shared", "duplicated"])
def test_a_tied_head_is_reported_once(tmp_path: Path, tied_head: str) -> None:
    path, _, weights = written(tmp_path, "palette", {"tied": True}, tied_head=tied_head)
    records = [r for r in read_weights(path) if "embed" in r.name or "head" in r.name]
    assert [(r.name, r.sha256) for r in records] == [("embed_tokens", weights.matrix("embed_tokens").digest())]


def test_a_changed_byte_changes_one_digest(tmp_path: Path) -> None:
    path, *_ = written(tmp_path, "palette", {"tied": False})
    before = {r.name: r.sha256 for r in read_weights(path)}
    data = bytearray((path / WEIGHTS).read_bytes())
    at = next(a for a in range(64, len(data), 64) if METADATA.unpack_from(data, a)[:3] == (0xDEADBEEF, 11, 4096))
    start = METADATA.unpack_from(data, at)[3]
    data[start + 5] ^= 1
    (path / WEIGHTS).write_bytes(bytes(data))
    after = {r.name: r.sha256 for r in read_weights(path)}
    assert len([n for n in before if before[n] != after[n]]) == 1


def test_a_truncated_package_is_refused(tmp_path: Path) -> None:
    path, *_ = written(tmp_path, "palette", {})
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(FormatError, match="blob"):
        list(read_weights(path))
    with pytest.raises(FormatError, match="Core ML model"):
        list(read_weights(tmp_path / "absent.mlpackage"))
