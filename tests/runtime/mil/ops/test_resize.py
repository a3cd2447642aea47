"""Resized images: against the documented grids with scipy's interpolation, and against torch."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from scipy.ndimage import map_coordinates

# Where [0, 1] is sampled, as the notes of coremltools' resize_bilinear print it for 5 and 6 points.
DOCUMENTED = {
    "UNALIGN_CORNERS": ([0, 0.1, 0.5, 0.9, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]),
    "STRICT_ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "ALIGN_CORNERS": ([0, 0.25, 0.5, 0.75, 1], [0, 0.2, 0.4, 0.6, 0.8, 1]),
    "DEFAULT": ([0, 0.4, 0.8, 1, 1], [0, 1 / 3, 2 / 3, 1, 1, 1]),
    "OFFSET_CORNERS": ([0.1, 0.3, 0.5, 0.7, 0.9], [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12]),
}
SIDES = st.integers(1, 9)


def documented_grid(length: int, count: int, mode: str) -> np.ndarray:
    """The sampling modes as Core ML's NeuralNetwork specification has them: start and end of a linspace."""
    start, end = {
        "STRICT_ALIGN_CORNERS": (0, length - 1),
        "ALIGN_CORNERS": (0, length - 1) if count > 1 else ((length - 1) / 2,) * 2,
        "DEFAULT": (0, length - length / count),
        "OFFSET_CORNERS": tuple(max(1, length - 1) / count * p for p in (0.5, count - 0.5)),
        "UNALIGN_CORNERS": tuple(length / count * p - 0.5 for p in (0.5, count - 0.5)),
    }[mode]
    return np.clip(np.linspace(start, end, count), 0, length - 1)


def interpolated(x: np.ndarray, sizes: tuple[int, ...], mode: str) -> np.ndarray:
    """x with its last axes of other sizes, by scipy in double precision."""
    points = [np.arange(n) for n in x.shape[: x.ndim - len(sizes)]]
    points += [documented_grid(n, m, mode) for n, m in zip(x.shape[-len(sizes) :], sizes, strict=True)]
    return map_coordinates(x.astype(np.float64), np.meshgrid(*points, indexing="ij"), order=1, mode="nearest")


@pytest.mark.parametrize("mode", DOCUMENTED)
def test_grids_are_the_documented_ones(mode: str) -> None:
    def build(x: mb.Var) -> list[mb.Var]:
        return [mb.resize_bilinear(x=x, target_size_height=1, target_size_width=n, sampling_mode=mode) for n in (5, 6)]

    for have, want in zip(outputs(build, {"x": np.array([[[0, 1]]], np.float32)}), DOCUMENTED[mode], strict=True):
        np.testing.assert_allclose(have.ravel(), want, rtol=1e-6, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(DOCUMENTED)), SIDES, SIDES, SIDES, SIDES, st.integers(1, 4))
def test_linear_resizing_in_every_mode(mode: str, h: int, w: int, h2: int, w2: int, dims: int) -> None:
    x, shape = normal((2, 3, h, w)), (h2, w2) if dims <= 2 else (2, 4, h2, w2)

    def build(x: mb.Var) -> list[mb.Var]:
        return [
            mb.resize_bilinear(x=x, target_size_height=h2, target_size_width=w2, sampling_mode=mode),
            mb.resize(x=x, shape=shape, resized_dims=np.uint32(dims), sampling_mode=mode),
        ]

    plane, some = outputs(build, {"x": x})
    np.testing.assert_allclose(plane, interpolated(x, (h2, w2), mode), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(some, interpolated(x, shape[-dims:], mode), rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 2, 3, 0.5, 1.7, 3.17]), st.booleans())
def test_resizing_against_torch(h: int, w: int, h2: int, w2: int, factor: float, align: bool) -> None:
    x, size = normal((1, 2, h, w)), (h2, w2)
    t, scaled = torch.from_numpy(x), tuple(int(np.floor(np.float32(n) * np.float32(factor))) for n in (h, w))
    if min(scaled) == 0:
        scaled, factor = (h, w), 1

    def build(x: mb.Var) -> list[mb.Var]:
        return [
            mb.resize_nearest_neighbor(x=x, target_size_height=h2, target_size_width=w2),
            mb.resize(x=x, shape=size, resized_dims=np.uint32(2), interpolation_mode="NEAREST_NEIGHBOR"),
            mb.upsample_nearest_neighbor(x=x, scale_factor_height=factor, scale_factor_width=factor),
            mb.upsample_bilinear(
                x=x, scale_factor_height=factor, scale_factor_width=factor, align_corners=align,
                half_pixel_centers=not align,
            ),
            mb.upsample_bilinear(x=x, scale_factor_height=factor, scale_factor_width=factor, align_corners=align),
        ]  # fmt: skip

    found = outputs(build, {"x": x})
    centres, below = (nearest(x, s, half) for s, half in ((size, Fraction(1, 2)), (scaled, Fraction(0))))
    linear = F.interpolate(t.double(), scaled, mode="bilinear", align_corners=align)
    for have, want in zip(found, [centres, centres, below, linear, linear], strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-6)
    if all(n % m == 0 for n, m in zip(size, (h, w), strict=True)):  # else torch's factors in fp32 miss whole numbers
        np.testing.assert_array_equal(found[0], F.interpolate(t, size, mode="nearest-exact"))


def nearest(x: np.ndarray, size: tuple[int, ...], offset: Fraction) -> np.ndarray:
    """The elements at floor((i + offset) * old / new), in exact arithmetic."""
    sides = zip(x.shape[-2:], size, strict=True)
    rows, columns = ([int((i + offset) * Fraction(old, new)) for i in range(new)] for old, new in sides)
    return x[:, :, rows][:, :, :, columns]


def test_values_that_core_ml_gives() -> None:
    """Expected values of coremltools' own tests, which run on a Mac."""
    x, wide = np.array([1, 2], np.float32), {"scale_factor_height": 2, "scale_factor_width": 3}

    def build(x: mb.Var) -> list[mb.Var]:
        row, column = mb.reshape(x=x, shape=[1, 1, 1, 2]), mb.reshape(x=x, shape=[1, 1, 2, 1])
        to_3_by_2 = {"shape": [1, 1, 3, 2], "resized_dims": np.uint32(2), "interpolation_mode": "NEAREST_NEIGHBOR"}
        return [
            mb.upsample_bilinear(x=row, align_corners=False, half_pixel_centers=False, **wide),
            mb.upsample_bilinear(x=row, align_corners=True, **wide),
            mb.resize(x=column, sampling_mode="DEFAULT", **to_3_by_2),
            mb.upsample_nearest_neighbor(x=row, scale_factor_height=3.17, scale_factor_width=0.67),
        ]

    wanted = [
        [1, 4 / 3, 5 / 3, 2, 2, 2] * 2, [1, 1.2, 1.4, 1.6, 1.8, 2] * 2, [1, 1, 2, 2, 2, 2], [1] * 3,
    ]  # fmt: skip
    for have, want in zip(outputs(build, {"x": x}), wanted, strict=True):
        np.testing.assert_allclose(have.ravel(), want, rtol=1e-6)


def test_sizes_at_run_time_zeros_integers_and_crops() -> None:
    x, i, size = normal((1, 2, 3, 4)), np.arange(4, dtype=np.int32)[None] * 10, np.array([5, 0], np.int32)

    def build(x: mb.Var, i: mb.Var, size: mb.Var) -> list[mb.Var]:
        return [
            mb.resize(x=x, shape=size, resized_dims=np.uint32(2), sampling_mode="UNALIGN_CORNERS"),
            mb.resize(x=i, shape=[8], resized_dims=np.uint32(1)),
            mb.crop(x=x, crop_height=[1, 0], crop_width=[1, 2]),
        ]

    resized, whole, cut = outputs(build, {"x": x, "i": i, "size": size})
    np.testing.assert_allclose(resized, F.interpolate(torch.from_numpy(x), (5, 4), mode="bilinear"), atol=1e-6)
    np.testing.assert_array_equal(whole, [[0, 5, 10, 15, 20, 25, 30, 30]])
    np.testing.assert_array_equal(cut, x[:, :, 1:, 1:2])


def test_in_fp16_an_interpolated_value_is_rounded_once() -> None:
    x = normal((1, 1, 9, 9)).astype(np.float16)
    (found,) = outputs(
        lambda x: mb.resize_bilinear(x=x, target_size_height=20, target_size_width=20, sampling_mode="UNALIGN_CORNERS"),
        {"x": x}, precision="fp16", target=ct.target.iOS16,
    )  # fmt: skip
    want = interpolated(x, (20, 20), "UNALIGN_CORNERS").astype(np.float16)
    assert (found != want).mean() < 0.02  # fp32's own error moves a value across the middle between two of fp16
