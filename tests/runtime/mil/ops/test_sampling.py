"""Images at computed coordinates: against torch's grid_sample, onnxruntime's RoiAlign and Core ML's expected values."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from onnx import TensorProto, helper
from scipy.ndimage import map_coordinates

from satchel.runtime.mil.ops.sampling import crop_resize

COORDINATES = ("unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one")
TORCH_PADDING = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
GRIDS = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
BOXES = ("CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST", "CENTER_SIZE_WIDTH_FIRST")


def from_pixels(places: np.ndarray, length: int, mode: str, align: bool) -> np.ndarray:
    """Places between the elements of an axis -> coordinates in a mode."""
    part = places / (length - 1) if align else (places + 0.5) / length
    return {"unnormalized": places, "normalized_zero_to_one": part, "normalized_minus_one_to_one": 2 * part - 1}[mode]


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["bilinear", "nearest"]), st.sampled_from(list(TORCH_PADDING)), st.sampled_from(COORDINATES),
    st.booleans(), st.integers(2, 6), st.integers(2, 6), st.integers(0, 99),
)  # fmt: skip
def test_resample(mode: str, padding: str, coordinates: str, align: bool, h: int, w: int, seed: int) -> None:
    x, fill = normal((2, 3, h, w)), np.float32(0 if padding != "constant" else 6.17)
    rng = np.random.default_rng(seed)
    rows, columns = (rng.uniform(-1.5 * n, 2.5 * n, (2, 4, 5)) for n in (h, w))
    points = np.stack([from_pixels(columns, w, coordinates, align), from_pixels(rows, h, coordinates, align)], -1)

    def build(x: mb.Var, points: mb.Var) -> mb.Var:
        return mb.resample(
            x=x, coordinates=points, sampling_mode=mode, padding_mode=padding, padding_value=fill,
            coordinates_mode=coordinates, align_corners=align,
        )  # fmt: skip

    (found,) = outputs(build, {"x": x, "points": points.astype(np.float32)}, target=ct.target.iOS16)
    ends = padding == "reflection"  # torch reflects at the middle of the last element where corners are aligned
    grid = [from_pixels(p, n, "normalized_minus_one_to_one", ends) for p, n in ((columns, w), (rows, h))]
    t, at = torch.from_numpy(x.astype(np.float64) - fill), torch.from_numpy(np.stack(grid, -1))
    want = F.grid_sample(t, at, mode=mode, padding_mode=TORCH_PADDING[padding], align_corners=ends) + float(fill)
    # coordinates are in fp32: places up to 15 are exact to 1e-6, times the slope of x
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=3e-5)


def test_coordinates_may_be_integers() -> None:
    x, at = normal((1, 1, 3, 4)), np.array([[[[0, 0], [3, 2], [1, 1]]]], np.int32)
    kw = {"padding_mode": "border", "padding_value": np.float32(0), "coordinates_mode": "unnormalized"}
    found = outputs(
        lambda x, at: [
            mb.resample(x=x, coordinates=at, sampling_mode=m, align_corners=False, **kw)
            for m in ("bilinear", "nearest")
        ],
        {"x": x, "at": at},
    )
    for have in found:
        np.testing.assert_array_equal(have.ravel(), x[0, 0, [0, 2, 1], [0, 3, 1]])


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.integers(2, 6), st.integers(2, 6), st.booleans(), st.integers(0, 99))
def test_affine(h: int, w: int, h2: int, w2: int, each: bool, seed: int) -> None:
    x, matrix = normal((2, 3, h, w)), normal((2 if each else 1, 6), seed)

    def build(x: mb.Var, matrix: mb.Var) -> mb.Var:
        return mb.affine(
            x=x, transform_matrix=matrix, output_height=h2, output_width=w2, sampling_mode="bilinear",
            padding_mode="constant", padding_value=np.float32(0), coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        )  # fmt: skip

    (found,) = outputs(build, {"x": x, "matrix": matrix})
    theta = torch.from_numpy(matrix).reshape(-1, 2, 3).expand(2, 2, 3)
    grid = F.affine_grid(theta, [2, 3, h2, w2], align_corners=True)
    want = F.grid_sample(torch.from_numpy(x), grid, align_corners=True)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=2e-5)


def test_affine_as_core_ml_has_it() -> None:
    """Values of coremltools' own test, which runs on a Mac."""
    x = np.array([11, 22, 33, 44], np.float32).reshape(1, 1, 2, 2)
    matrix = np.array([[-1, -2, -3.7, -1, 3.5, 1.2]], np.float32)
    kw = {"sampling_mode": "bilinear", "padding_mode": "constant", "padding_value": np.float32(0)}
    kw |= {"coordinates_mode": "normalized_minus_one_to_one", "align_corners": True}
    found = outputs(
        lambda x, m: [
            mb.affine(x=x, transform_matrix=m, output_height=h, output_width=w, **kw) for h, w in ((3, 3), (2, 5))
        ],
        {"x": x, "m": matrix},
    )
    wanted = [10.752501, 2.5025, 0, 1.9799997, *[0] * 5], [10.752501, 5.94, 2.5025, 0.44000006, *[0] * 6]
    for have, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(have.ravel(), want, rtol=1e-4, atol=1e-6)


def box_points(start: float, end: float, count: int, mode: str) -> np.ndarray:
    """A box's points along an axis, a linspace as Core ML's NeuralNetwork specification has it."""
    length = end - start + 1
    first, last = {
        "STRICT_ALIGN_CORNERS": (0, length - 1),
        "ALIGN_CORNERS": (0, length - 1) if count > 1 else ((length - 1) / 2,) * 2,
        "DEFAULT": (0, length - length / count),
        "OFFSET_CORNERS": tuple(max(1, length - 1) / count * p for p in (0.5, count - 0.5)),
        "UNALIGN_CORNERS": tuple(length / count * p - 0.5 for p in (0.5, count - 0.5)),
    }[mode]
    return start + np.clip(np.linspace(first, last, count), 0, length - 1)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(GRIDS), st.sampled_from(BOXES), st.booleans(), st.integers(1, 4), st.integers(1, 4), st.data())
def test_crop_resize(mode: str, order: str, normalized: bool, h2: int, w2: int, data: st.DataObject) -> None:
    n, b, h, w = (data.draw(st.integers(low, 5)) for low in (1, 1, 2, 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, which = normal((b, 2, h, w)), rng.integers(0, b, n)
    spans = np.sort(rng.uniform(-0.3, 1.3, (2, n, 2)), axis=-1) * np.array([[[h - 1]], [[w - 1]]])  # rows, columns
    scale = np.float32(data.draw(st.sampled_from([1, 0.5])))
    given_spans = spans / (np.array([[[h - 1]], [[w - 1]]]) if normalized else 1) / scale
    pairs = [given_spans.mean(-1), np.ptp(given_spans, -1)] if "CENTER" in order else np.moveaxis(given_spans, -1, 0)
    ends = np.stack(pairs)  # [2, rows and columns, n]
    boxes = (ends if "HEIGHT" in order else ends[:, ::-1]).reshape(4, n).T.astype(np.float32)  # first, then second pair
    kw = {
        "target_height": h2, "target_width": w2, "normalized_coordinates": normalized, "spatial_scale": scale,
        "box_coordinate_mode": order, "sampling_mode": mode, "pad_value": np.float32(7),
    }  # fmt: skip
    roi, inputs = boxes.reshape(n, 1, 4, 1, 1), {"x": x, "boxes": boxes, "which": which.astype(np.int32)}
    (found,) = outputs(lambda x, boxes, which: mb.crop_resize(x=x, boxes=boxes, box_indices=which, **kw), inputs)
    (every,) = outputs(lambda x, roi: mb.crop_resize(x=x, roi=roi, **kw), {"x": x, "roi": roi}, ct.target.iOS16)
    # Not in a program: coremltools declares [n, b, ...] for what it documents as [n, 1, ...].
    indexed = np.concatenate([which[:, None], boxes], 1).astype(np.float32).reshape(n, 1, 5, 1, 1)
    each = crop_resize(x, indexed, **{**kw, "spatial_scale": float(scale), "pad_value": 7.0})
    want = np.zeros((n, b, 2, h2, w2))
    for i, j in np.ndindex(n, b):
        points = [box_points(*s[i], c, mode) for s, c in zip(spans, (h2, w2), strict=True)]
        for c in range(2):
            at = np.meshgrid(*points, indexing="ij")
            want[i, j, c] = map_coordinates(x[j, c].astype(np.float64), at, order=1, mode="constant", cval=7)
    edge = near_the_edge(spans, (h, w), (h2, w2), mode)
    for have, all_images in ((found, False), (each[:, 0], False), (every, True)):
        wanted = want if all_images else want[np.arange(n), which]
        off = np.abs(have - wanted) > 2e-5 * np.maximum(1, np.abs(wanted))
        assert not (off & ~edge[(slice(None),) + (None,) * (have.ndim - 3)]).any()


def near_the_edge(spans: np.ndarray, sizes: tuple[int, int], counts: tuple[int, int], mode: str) -> np.ndarray:
    """[n, h2, w2]: points so near the image's edge that fp32 decides on which side they lie."""
    masks = []
    for span, size, count in zip(spans, sizes, counts, strict=True):
        points = np.stack([box_points(*s, count, mode) for s in span])
        masks.append(np.minimum(np.abs(points), np.abs(points - size + 1)) < 1e-5)
    return masks[0][:, :, None] | masks[1][:, None, :]


@pytest.mark.parametrize("pad", [0.0, 10.0])
def test_crop_resize_as_core_ml_has_it(pad: float) -> None:
    """Values of coremltools' own tests, which run on a Mac; TensorFlow's crop_and_resize gives the same."""
    x = np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4)
    boxes = np.array([[0.1, 0.3, 1.3, 1], [0.5, 1.8, 1, 0.3], [0, 0.4, 0.6, 0.7]], np.float32)
    backwards, one = np.array([[2, 2, 1, 1]], np.float32), np.array([[1, 1, 2, 2]], np.float32)

    def build(x: mb.Var) -> list[mb.Var]:
        cut = {"x": x, "sampling_mode": "ALIGN_CORNERS", "pad_value": np.float32(pad)}
        two = {"target_height": 2, "target_width": 2}
        return [
            mb.crop_resize(boxes=boxes, box_indices=[0, 0, 0], normalized_coordinates=True, **two, **cut),
            mb.crop_resize(boxes=backwards, **two, **cut),
            mb.crop_resize(boxes=one, target_height=1, target_width=1, **cut),
        ]

    several, turned, middle = outputs(build, {"x": x})
    want = [3.1, 5.2, pad, pad, pad, 7.9, pad, 13.9, 2.2, 3.1, 9.4, 10.3]
    np.testing.assert_allclose(several.ravel(), want, rtol=1e-6)
    np.testing.assert_array_equal(turned.ravel(), [11, 10, 7, 6])
    np.testing.assert_array_equal(middle.ravel(), [8.5])


def test_offset_corners_and_a_mean_are_roi_align() -> None:
    x, boxes = normal((2, 3, 9, 11)), np.array([[1, 2, 9, 7.5], [0.5, 0.5, 4, 3.2], [2, 1, 3.5, 6]], np.float32)
    which, scale, bins, samples = np.array([0, 1, 1]), 0.9, 3, 2

    def build(x: mb.Var, boxes: mb.Var) -> mb.Var:
        crops = mb.crop_resize(
            x=x, boxes=boxes, box_indices=which.astype(np.int32), target_height=bins * samples, spatial_scale=scale,
            target_width=bins * samples, box_coordinate_mode="CORNERS_WIDTH_FIRST", sampling_mode="OFFSET_CORNERS",
        )  # fmt: skip
        return mb.avg_pool(x=crops, kernel_sizes=[samples] * 2, strides=[samples] * 2, pad_type="valid")

    (found,) = outputs(build, {"x": x, "boxes": boxes})
    node = helper.make_node(
        "RoiAlign", ["x", "boxes", "which"], ["y"], output_height=bins, output_width=bins, sampling_ratio=samples,
        spatial_scale=scale, coordinate_transformation_mode="output_half_pixel",
    )  # fmt: skip
    floats = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "boxes", "y")]
    whole = helper.make_tensor_value_info("which", TensorProto.INT64, None)
    graph = helper.make_graph([node], "roi", [*floats[:2], whole], floats[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 16)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (want,) = session.run(None, {"x": x, "boxes": boxes, "which": which})
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
