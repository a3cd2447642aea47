"""Compressed matrices survive the work folder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llama import tiny_llama, weights_of

from satchel.devices.plan import Choice, Plan
from satchel.export.palettize.compress import compress_model
from satchel.export.palettize.packing import pack_bits, pack_nibbles, unpack_bits
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.widths import stored_scheme


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=33))
def test_codes_are_packed_from_the_low_bit_up(bits, bytes_):
    codes = [b % 2**bits for b in bytes_]
    packed = pack_bits(np.array(codes, np.uint8), bits)
    number = sum(code << (i * bits) for i, code in enumerate(codes))
    assert packed.tobytes() == number.to_bytes(-(-len(codes) * bits // 8), "little")
    assert unpack_bits(packed, bits, len(codes)).tolist() == codes


def test_first_code_is_the_low_nibble():
    assert pack_nibbles(np.array([1, 2, 3], np.uint8)).tolist() == [0x21, 0x03]
    assert pack_nibbles(np.array([[1, 2, 15], [3, 0, 0]], np.uint8)).tolist() == [[0x21, 0x0F], [0x03, 0]]
    assert pack_bits(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]
    assert pack_bits(np.array([1, 6, 3], np.uint8), 3).tolist() == [0b11110001, 0b0]


@pytest.mark.parametrize("weights", ["palette", "int4", "int8", "fp16", "fp32"])
def test_every_scheme_through_the_store(tmp_path, weights):
    reference, config = tiny_llama(bias=True)
    plain = weights_of(reference, config)

    def read(name, rows=slice(None)):
        return plain.matrices[name].dequantize(rows) if name in plain.matrices else plain.vectors[name]

    statistics = {n: np.linspace(0.1, 2, s[1], dtype=np.float32) for n, s in config.matrix_shapes().items()}
    seen = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        store = WeightStore(folder)
        compress_model(
            read, config, statistics, Recipe(weights=weights), store, progress=lambda s, d, t: seen.append((d, t))
        )
    assert seen[-1] == (15, 15)
    schemes = {n: WeightStore(tmp_path / "a").matrix(n).scheme() for n in config.matrix_shapes()}
    expected = {"palette": "palette4", "int4": "int4-block32"}.get(weights, weights)
    assert schemes["layers.0.mlp.up_proj"] == expected
    assert schemes["embed_tokens"] == ("int8" if weights in ("palette", "int4") else expected)
    for name, (rows, columns) in config.matrix_shapes().items():
        matrix = store.matrix(name)
        assert matrix.shape == (rows, columns)
        error = np.abs(matrix.dequantize() - read(name)).mean() / np.abs(read(name)).mean()
        assert error < {"fp32": 1e-9, "fp16": 1e-3, "int8": 0.02}.get(weights, 0.2)
    assert all((store.vector(n) == read(n)).all() for n in config.vector_shapes())
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    with pytest.raises(KeyError):
        store.matrix("layers.9.mlp.up_proj")


@pytest.mark.parametrize("scheme", ["palette-mixed", "palette-mixed-rows16", "int4", "fp16"])
def test_any_width_comes_back_from_a_file_of_its_size(tmp_path, scheme):
    weights = weights_of(*tiny_llama(), scheme)
    store = WeightStore(tmp_path)
    for name, matrix in weights.matrices.items():
        store.put_matrix(name, matrix)
        again = store.matrix(name)
        assert (type(again), again.bits, again.digest()) == (type(matrix), matrix.bits, matrix.digest())
        codes = matrix.shape[0] * matrix.shape[1] * matrix.bits // 8
        assert codes < (tmp_path / f"{name}.matrix.safetensors").stat().st_size < codes * 1.25 + 2048


def test_manifests_say_what_the_file_of_a_plan_holds():
    matrices = weights_of(*tiny_llama(layers=1), "palette-mixed").matrices
    own = {name: m.scheme() for name, m in matrices.items()}
    assert set(own.values()) == {"palette1", "palette2", "palette3", "palette4", "palette6", "int8"}
    stored = {
        (format_, target): {
            name: stored_scheme(Plan("", format_, 1, 0, (Choice("target", target, "", ""),)), m)
            for name, m in matrices.items()
        }
        for format_, target in [
            ("onnx", "opset21"), ("coreml", "iOS18"), ("executorch", "coreml"), ("coreml", "iOS16"),
            ("executorch", "xnnpack"),
        ]
    }  # fmt: skip
    assert stored["onnx", "opset21"] == stored["coreml", "iOS18"] == stored["executorch", "coreml"] == own
    assert set(stored["executorch", "xnnpack"].values()) == {"int8"}
    assert stored["coreml", "iOS16"] == {n: s.replace("palette3", "palette4") for n, s in own.items()}
