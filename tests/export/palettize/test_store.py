"""Compressed matrices survive the work folder."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llama import tiny_llama, weights_of

from satchel.export.palettize.compress import compress_model
from satchel.export.palettize.packing import pack_bits, pack_nibbles, unpack_nibbles
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.store import WeightStore
from satchel.runtime.errors import UsageError


@given(st.lists(st.integers(0, 15), max_size=33))
def test_nibbles_round_trip(codes):
    packed = pack_nibbles(np.array(codes, np.uint8))
    assert packed.size == (len(codes) + 1) // 2
    assert unpack_nibbles(packed, len(codes)).tolist() == codes


def test_first_code_is_the_low_nibble():
    assert pack_nibbles(np.array([1, 2, 3], np.uint8)).tolist() == [0x21, 0x03]
    assert pack_nibbles(np.array([[1, 2, 15], [3, 0, 0]], np.uint8)).tolist() == [[0x21, 0x0F], [0x03, 0]]
    assert pack_bits(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]
    assert pack_bits(np.array([1, 6, 3], np.uint8), 3).tolist() == [0b11110001, 0b0]


@pytest.mark.parametrize("weights", ["palette", "int4", "int8", "fp16", "fp32"])
def test_every_scheme_through_the_store(tmp_path, weights):
    reference, config = tiny_llama(bias=True)
    plain = weights_of(reference, config)

    def read(name):
        return plain.matrices[name].dequantize() if name in plain.matrices else plain.vectors[name]

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


def test_recipes_are_strict():
    with pytest.raises(UsageError, match="unknown weight scheme"):
        Recipe(weights="int3")
    with pytest.raises(UsageError, match="bits"):
        Recipe(bits=5)
