"""Weights out of a .pte: the same names and digests as went in."""

import pytest
from tiny_llama import tiny_llama, weights_of

from satchel.devices.plan import Choice, Plan
from satchel.export.formats.executorch import write
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import ModelInfo
from satchel.runtime.readback.executorch import read_weights

INFO = ModelInfo("tiny", "llama", "", "unknown", "", "random", 1)
BITS = {"palette": 8, "palette-rows16": 8, "palette-mixed": 8, "int8": 8, "int4-sym": 4, "fp16": 32, "fp32": 32}


def exported(folder, scheme, tied, target="xnnpack"):
    reference, config = tiny_llama(tied=tied, bias=not tied)
    weights = weights_of(reference, config, scheme)
    plan = Plan("test", "executorch", 16, 0, (Choice("target", target, "", ""),))
    return weights, config, folder / write(folder, weights, config, plan, INFO).path


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("scheme", BITS)
def test_names_shapes_and_digests_are_those_of_the_weights(tmp_path, scheme, tied):
    weights, config, path = exported(tmp_path, scheme, tied)
    records = list(read_weights(path))
    assert {r.name: r.shape for r in records} == config.matrix_shapes()
    assert [r.name for r in records] == list(config.matrix_shapes())
    for record in records:
        rows, columns = record.shape
        head = record.name in ("embed_tokens", "lm_head")
        assert record.sha256 == weights.matrix(record.name).digest(), record.name
        assert record.bits == (8 if head and scheme == "int4-sym" else BITS[scheme])
        scales = {8: 4 * rows, 4: 2 * rows * columns // 32, 32: 0}[record.bits]
        assert record.bytes == rows * columns * record.bits // 8 + scales


@pytest.mark.parametrize("scheme", ["palette", "palette-rows16", "palette-mixed"])
def test_the_core_ml_delegates_palette_is_read_out_of_its_package(tmp_path, scheme):
    weights, config, path = exported(tmp_path, scheme, True, "coreml")
    records = {r.name: r for r in read_weights(path)}
    assert set(records) == set(config.matrix_shapes())
    assert all(r.sha256 == weights.matrix(name).digest() for name, r in records.items())
    assert {r.bits for r in records.values()} == {m.bits for m in weights.matrices.values()}
    assert all(r.bits == weights.matrix(name).bits for name, r in records.items())


def test_one_changed_code_changes_the_digest_of_that_matrix_alone(tmp_path):
    weights, _, path = exported(tmp_path, "palette", True)
    name = "layers.1.mlp.up_proj"
    data, codes = bytearray(path.read_bytes()), weights.matrix(name).codes().tobytes()
    data[data.index(codes) + 7] ^= 1
    path.write_bytes(data)
    assert [r.name for r in read_weights(path) if r.sha256 != weights.matrix(r.name).digest()] == [name]


@pytest.mark.parametrize("target", ["xnnpack", "coreml"])
def test_a_file_that_is_not_whole_is_refused(tmp_path, target):
    _, _, path = exported(tmp_path, "palette", True, target)
    whole = path.read_bytes()
    for data in (b"", whole[:60], whole[:-100], b"\0" * 5000, whole[:8] + b"eh01" + whole[12:]):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"\.pte"):
            list(read_weights(path))
