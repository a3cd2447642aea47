"""Compressed constants, against coremltools' own decompression, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from coremltools.converters.mil.mil.types import type_mapping
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs

BITS = (1, 2, 3, 4, 6, 8)


def sub_byte(values: np.ndarray, name: str) -> np.ndarray:
    """Values as coremltools wants them for a type that numpy lacks."""
    return values.astype(type_mapping.nptype_from_builtin(type_mapping.string_to_builtin(name)))


def expanded(make: Callable[[], mb.Var], target: ct.target = ct.target.iOS18) -> tuple[np.ndarray, np.ndarray]:
    """(what our interpreter makes of a compressed constant of fp16, what coremltools makes of it)."""
    inferred = []

    def build(x: mb.Var) -> mb.Var:
        constant = make()
        inferred.append(constant.op.materialized_val_inference())
        return mb.mul(x=constant, y=x)

    return outputs(build, {"x": np.ones((1,), np.float16)}, target=target)[0], inferred[0]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BITS), st.data())
def test_lut_per_tensor_grouped_and_vector(bits: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    groups = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    shape = [g * data.draw(st.integers(1, 4)) for g in groups]
    vector = data.draw(st.sampled_from([1, 1, 2]))
    axis = data.draw(st.integers(0, rank - 1))
    rng = np.random.default_rng(bits)
    indices = sub_byte(rng.integers(0, 2**bits, shape), f"uint{bits}")
    lut = rng.standard_normal((*groups, 2**bits, vector)).astype(np.float16)
    kw = {"vector_axis": np.int32(axis)} if vector > 1 else {}
    have, want = expanded(lambda: mb.constexpr_lut_to_dense(indices=indices, lut=lut, **kw))
    np.testing.assert_array_equal(have, want.astype(np.float32))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_lut_packed_in_bytes_before_ios18(bits: int) -> None:
    rng = np.random.default_rng(bits)
    shape = (5, 7)
    codes = rng.integers(0, 2**bits, 35)
    stream = ((codes[:, None] >> np.arange(bits)) & 1).reshape(-1).astype(np.uint8)
    packed = np.packbits(stream, bitorder="little")
    lut = rng.standard_normal(2**bits).astype(np.float16)
    have, want = expanded(
        lambda: mb.constexpr_lut_to_dense(indices=packed, lut=lut, shape=np.array(shape, np.uint32)), ct.target.iOS16
    )
    np.testing.assert_array_equal(have, lut[codes].reshape(shape).astype(np.float32))
    np.testing.assert_array_equal(have, want.astype(np.float32))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["int4", "uint4", "int8", "uint8"]), st.sampled_from(["none", "codes", "float"]), st.data())
def test_blockwise_shift_scale(name: str, offset: str, data: st.DataObject) -> None:
    scales = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    shape = [s * data.draw(st.integers(1, 4)) for s in scales]
    low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[name]
    rng = np.random.default_rng(3)
    codes = sub_byte(rng.integers(low, high, shape), name)
    scale = rng.uniform(0.01, 1, scales).astype(np.float32)
    given_offset = {
        "none": {},
        "codes": {"offset": sub_byte(rng.integers(low, high, scales), name)},
        "float": {"offset": rng.standard_normal(scales).astype(np.float32)},
    }[offset]

    def build(x: mb.Var) -> mb.Var:
        return mb.mul(x=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale, **given_offset), y=x)

    (have,) = outputs(build, {"x": np.ones((1,), np.float32)})
    blocks = np.array(shape) // np.array(scales)
    each = {n: v.astype(np.float64) for n, v in {"scale": scale, **given_offset}.items()}
    for axis, block in enumerate(blocks):
        each = {n: np.repeat(v, block, axis) for n, v in each.items()}
    np.testing.assert_allclose(have, (codes.astype(np.float64) - each.get("offset", 0)) * each["scale"], rtol=1e-6)


@pytest.mark.parametrize("per_axis", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_affine(per_axis: bool, dtype: type) -> None:
    rng = np.random.default_rng(4)
    codes = rng.integers(0, 120, (3, 4, 5)).astype(dtype)
    scale = rng.uniform(0.1, 1, 4).astype(np.float16) if per_axis else np.float16(0.3)
    zero = rng.integers(0, 9, 4).astype(dtype) if per_axis else dtype(5)
    have, _ = expanded(
        lambda: mb.constexpr_affine_dequantize(quantized_data=codes, zero_point=zero, scale=scale, axis=np.int32(1)),
        ct.target.iOS16,
    )
    column = (slice(None), None) if per_axis else ()
    want = (codes.astype(np.float32) - np.asarray(zero, np.float32)[column]) * np.asarray(scale, np.float32)[column]
    np.testing.assert_array_equal(have, want)


def test_sparse_and_cast() -> None:
    dense = np.where(np.random.default_rng(5).random((6, 7)) < 0.4, normal((6, 7), 6), 0).astype(np.float16)
    mask = dense != 0
    packed = np.packbits(mask.ravel(), bitorder="little")
    shape = np.array(dense.shape, np.uint32)
    old, _ = expanded(
        lambda: mb.constexpr_sparse_to_dense(nonzero_data=dense[mask], mask=packed, shape=shape), ct.target.iOS16
    )
    new, _ = expanded(lambda: mb.constexpr_sparse_to_dense(nonzero_data=dense[mask], mask=sub_byte(mask, "uint1")))
    np.testing.assert_array_equal(old, dense)
    np.testing.assert_array_equal(new, dense)


def test_compositions_of_lut_and_scale() -> None:
    rng = np.random.default_rng(7)
    indices = sub_byte(rng.integers(0, 16, (4, 6)), "uint4")
    lut, scale = rng.integers(-128, 128, (1, 1, 16, 1)).astype(np.int8), rng.uniform(0.1, 1, (4, 1)).astype(np.float32)

    def build(x: mb.Var) -> mb.Var:
        codes = mb.constexpr_lut_to_dense(indices=indices, lut=lut)
        return mb.mul(x=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale), y=x)

    (have,) = outputs(build, {"x": np.ones((1,), np.float32)})
    np.testing.assert_array_equal(have, lut[0, 0, indices.astype(int), 0].astype(np.float32) * scale)


def test_in_fp16_dequantized_values_are_fp16() -> None:
    rng = np.random.default_rng(8)
    codes, scale = rng.integers(-128, 128, (8, 8)).astype(np.int8), rng.uniform(0.1, 1, (8, 1)).astype(np.float16)
    one = {"x": np.ones((1,), np.float16)}
    build = lambda x: mb.mul(x=mb.constexpr_blockwise_shift_scale(data=codes, scale=scale), y=x)  # noqa: E731
    exact = codes.astype(np.float32) * scale.astype(np.float32)
    np.testing.assert_array_equal(outputs(build, one)[0], exact)
    np.testing.assert_array_equal(outputs(build, one, precision="fp16")[0], exact.astype(np.float16))
