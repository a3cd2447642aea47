"""Compressed constants, against coremltools' own decompression, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools.optimize.coreml as cto
import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types import type_mapping
from coremltools.optimize._utils import lut_to_dense
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs

from satchel.runtime import mil
from satchel.runtime.mil.ops import constexpr

BITS = (1, 2, 3, 4, 6, 8)


def sub_byte(values: np.ndarray, name: str) -> np.ndarray:
    """Values as coremltools wants them for a type that numpy lacks."""
    return values.astype(type_mapping.nptype_from_builtin(type_mapping.string_to_builtin(name)))


def expanded(
    make: Callable[[], mb.Var], target: ct.target = ct.target.iOS18, precision: str = "fp32"
) -> tuple[np.ndarray, np.ndarray]:
    """(what our interpreter makes of a compressed constant, what coremltools makes of it)."""
    inferred = []

    def build(x: mb.Var) -> mb.Var:
        constant = make()
        inferred.append(np.asarray(constant.op.materialized_val_inference()))
        one = mb.cast(x=x, dtype="fp16" if constant.dtype == types.fp16 else "fp32")
        floats = constant if constant.dtype in (types.fp16, types.fp32) else mb.cast(x=constant, dtype="fp32")
        return mb.mul(x=floats, y=one)

    return outputs(build, {"x": np.ones((1,), np.float32)}, target=target, precision=precision)[0], inferred[0]


LUT_TYPES = ("int8", "uint8", "float16", "float32")


def entries(rng: np.random.Generator, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Random entries of a table."""
    if name.startswith("float"):
        return rng.standard_normal(shape).astype(name)
    limits = np.iinfo(name)
    return rng.integers(limits.min, limits.max + 1, shape).astype(name)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BITS), st.data())
def test_lut_per_tensor_grouped_and_vector(bits: int, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    groups = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    shape = [g * data.draw(st.integers(1, 4)) for g in groups]
    vector = data.draw(st.sampled_from([1, 1, 2]))
    axis = data.draw(st.integers(-rank, rank - 1))
    rng = np.random.default_rng(bits)
    indices = sub_byte(rng.integers(0, 2**bits, shape), f"uint{bits}")
    lut = entries(rng, (*groups, 2**bits, vector), data.draw(st.sampled_from(LUT_TYPES)))
    kw = {"vector_axis": np.int32(axis)} if vector > 1 else {}
    have, want = expanded(lambda: mb.constexpr_lut_to_dense(indices=indices, lut=lut, **kw))
    np.testing.assert_array_equal(have, want.astype(np.float32))


@pytest.mark.parametrize("name", ["float16", "float32"])
@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_lut_packed_in_bytes_before_ios18(bits: int, name: str) -> None:
    rng = np.random.default_rng(bits)
    shape = (5, 7)
    codes = rng.integers(0, 2**bits, 35)
    stream = ((codes[:, None] >> np.arange(bits)) & 1).reshape(-1).astype(np.uint8)
    packed = np.packbits(stream, bitorder="little")
    lut = entries(rng, (2**bits,), name)
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


SPARSE_TYPES = ("int4", "uint4", *LUT_TYPES)


def sparse(rng: np.random.Generator, shape: list[int], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(a mask, as many values of a type as it has bits)."""
    mask = rng.random(shape) < rng.choice([0.0, 0.3, 0.7, 1.0])
    count = int(mask.sum())
    low = {"int4": -8}.get(name, 0)
    values = rng.integers(low, low + 16, count) if name.endswith("int4") else entries(rng, (count,), name)
    return sub_byte(mask, "uint1"), sub_byte(values, name) if name.endswith("int4") else values


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SPARSE_TYPES), st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 99))
def test_sparse_values_of_every_type(name: str, shape: list[int], seed: int) -> None:
    mask, values = sparse(np.random.default_rng(seed), shape, name)

    def make() -> mb.Var:
        dense = mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask)
        if not name.endswith("int4"):
            return dense
        return mb.constexpr_blockwise_shift_scale(data=dense, scale=np.ones([1] * len(shape), np.float32))

    have, want = expanded(make)
    np.testing.assert_array_equal(have, want.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(BITS), st.sampled_from(LUT_TYPES), st.data())
def test_lut_of_sparse_indices(bits: int, name: str, data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    groups = data.draw(st.lists(st.integers(1, 2), min_size=rank, max_size=rank))
    shape = [g * data.draw(st.integers(1, 4)) for g in groups]
    vector, axis = data.draw(st.sampled_from([1, 1, 2, 3])), data.draw(st.integers(0, rank - 1))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mask, _ = sparse(rng, shape, "int8")
    indices = sub_byte(rng.integers(0, 2**bits, int(mask.astype(int).sum())), f"uint{bits}")
    lut = entries(rng, (*groups, 2**bits, vector), name)
    kw = {"vector_axis": np.int32(axis)} if vector > 1 else {}

    def make() -> mb.Var:
        places, values = mb.constexpr_lut_to_sparse(indices_mask=mask, indices_nonzero_data=indices, lut=lut, **kw)
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=places)

    have, want = expanded(make)
    np.testing.assert_array_equal(have, want.astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["int4", "uint4", "int8", "uint8", "float32"]), st.sampled_from(["none", "codes", "float"]),
    st.sampled_from(["float16", "float32"]), st.data(),
)  # fmt: skip
def test_scale_of_sparse_codes(name: str, offset: str, dtype: str, data: st.DataObject) -> None:
    scales = data.draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    mask, codes = sparse(rng, [s * data.draw(st.integers(1, 4)) for s in scales], name)
    scale = rng.uniform(0.1, 1, scales).astype(dtype)
    _, offsets = sparse(np.random.default_rng(1), scales, name)
    shift: dict[str, np.ndarray] = {}
    if offset == "codes" and offsets.size == scale.size:
        shift = {"offset": offsets.reshape(scales)}
    if offset == "float":
        shift = {"offset": rng.integers(-5, 5, scales).astype(dtype)}

    def make() -> mb.Var:
        places, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=mask, nonzero_data=codes, scale=scale, **shift
        )
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=places)

    # coremltools computes in the type of the scale, as the interpreter in fp16 does.
    have, want = expanded(make, precision="fp16" if dtype == "float16" and name != "float32" else "fp32")
    close = {"rtol": 2.0**-9, "atol": 2.0**-9} if dtype == "float16" and name == "float32" else {"rtol": 2e-7}
    np.testing.assert_allclose(have, want, **close)


def test_masks_and_values_that_do_not_fit() -> None:
    mask = np.array([1, 0, 1], np.uint8)
    with pytest.raises(ValueError, match="2 bits"):
        constexpr.constexpr_sparse_to_dense(np.ones(1, np.float32), mask)
    with pytest.raises(ValueError, match="2 bits"):
        constexpr.constexpr_lut_to_sparse(mask, np.ones(3, np.uint8), np.ones((1, 2, 1), np.float32))
    with pytest.raises(ValueError, match="blocks"):
        constexpr.constexpr_lut_to_dense(np.ones((3, 200), np.uint8), np.ones((2, 1, 2, 1), np.float32))
    with pytest.raises(ValueError, match="index 2"):
        constexpr.constexpr_lut_to_dense(np.full((3,), 2, np.uint8), np.ones((1, 2, 1), np.float32))


@pytest.mark.parametrize("vector", [1, 2])
@pytest.mark.parametrize("groups", [(4, 1), (1, 2), (2, 2), (1, 32)])
def test_blocks_large_and_small(groups: tuple[int, ...], vector: int) -> None:
    rng = np.random.default_rng(0)
    indices, lut = rng.integers(0, 16, (32, 64)).astype(np.uint8), normal((*groups, 16, vector), 1)
    found = constexpr.constexpr_lut_to_dense(indices, lut, vector_axis=1)
    np.testing.assert_array_equal(found, lut_to_dense(indices, lut, 1))


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


# ---- whole packages, as coremltools compresses and decompresses them -----------------------------------------------


def palettize(joint: bool = False, **options: Any) -> Callable[[Any], Any]:
    config = cto.OptimizationConfig(cto.OpPalettizerConfig(mode="kmeans", weight_threshold=0, **options))
    return lambda model: cto.palettize_weights(model, config, joint_compression=joint)


def quantize(joint: bool = False, **options: Any) -> Callable[[Any], Any]:
    config = cto.OptimizationConfig(cto.OpLinearQuantizerConfig(weight_threshold=0, **options))
    return lambda model: cto.linear_quantize_weights(model, config, joint_compression=joint)


def prune(**options: Any) -> Callable[[Any], Any]:
    config = cto.OptimizationConfig(cto.OpMagnitudePrunerConfig(weight_threshold=0, **options))
    return lambda model: cto.prune_weights(model, config)


GROUPS = {"granularity": "per_grouped_channel", "group_size": 4}
BLOCKS = {"granularity": "per_block", "block_size": 4}
TENSOR = {"granularity": "per_tensor"}
SIGNED = {"mode": "linear_symmetric"}
COMPRESSED: dict[str, tuple[Any, list[Callable[[Any], Any]]]] = {
    "iOS16, 6-bit palette": (ct.target.iOS16, [palettize(nbits=6)]),
    "iOS16, 8 bits": (ct.target.iOS16, [quantize(dtype="uint8", mode="linear")]),
    "iOS16, pruned": (ct.target.iOS16, [prune(target_sparsity=0.6)]),
    "3-bit palettes of groups": (ct.target.iOS18, [palettize(nbits=3, **GROUPS)]),
    "4-bit palettes with a scale a channel": (
        ct.target.iOS18, [palettize(nbits=4, enable_per_channel_scale=True, **GROUPS)],
    ),
    "palette of vectors": (ct.target.iOS18, [palettize(nbits=4, cluster_dim=2)]),
    "int4 blocks": (ct.target.iOS18, [quantize(dtype="int4", **SIGNED, **BLOCKS)]),
    "uint4 blocks with offsets": (ct.target.iOS18, [quantize(dtype="uint4", mode="linear", **BLOCKS)]),
    "all pruned": (ct.target.iOS18, [prune(target_sparsity=1.0)]),
    "2 of 4 pruned": (ct.target.iOS18, [prune(n_m_ratio=(2, 4))]),
    "pruned, palettes of groups": (
        ct.target.iOS18, [prune(target_sparsity=0.5), palettize(True, nbits=2, **GROUPS)],
    ),
    "pruned, int4 blocks": (
        ct.target.iOS18, [prune(target_sparsity=0.5), quantize(True, dtype="int4", **SIGNED, **BLOCKS)],
    ),
    "pruned, uint8 with offsets": (
        ct.target.iOS18, [prune(target_sparsity=0.5), quantize(True, dtype="uint8", mode="linear")],
    ),
    "palette of int8": (ct.target.iOS18, [palettize(nbits=4), quantize(True, dtype="int8", **SIGNED, **TENSOR)]),
    "pruned, palette of int8": (
        ct.target.iOS18,
        [prune(target_sparsity=0.5), palettize(True, nbits=4), quantize(True, dtype="int8", **SIGNED, **TENSOR)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPRESSED)
def test_packages_that_coremltools_compressed(name: str, tmp_path: Path) -> None:
    target, steps = COMPRESSED[name]
    weight = normal((16, 8), 3).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec((8, 8), types.fp16)], opset_version=target)
    def built(x: mb.Var) -> mb.Var:
        return mb.linear(x=x, weight=weight)

    model = ct.convert(
        built, source="milinternal", convert_to="mlprogram", minimum_deployment_target=target,
        pass_pipeline=ct.PassPipeline.EMPTY,
    )  # fmt: skip
    for step in steps:
        model = step(model)
    found = []
    for k, each in enumerate((model, cto.decompress_weights(model))):
        each.save(str(tmp_path / f"{k}.mlpackage"))
        program = mil.load(tmp_path / f"{k}.mlpackage")
        ops = {o.type for o in program.package.block("main").operations}
        assert any(o.startswith("constexpr") for o in ops) == (k == 0)
        # x is the identity, so that the output is the weight itself; coremltools computes it in fp16.
        found += program.run({"x": np.eye(8, dtype=np.float16)}, precision="fp16").values()
    np.testing.assert_array_equal(found[0], found[1])
    assert name == "all pruned" or np.abs(found[0]).max() > 0.5
