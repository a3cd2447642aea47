"""Convolutions, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from onnx import TensorProto, helper

from satchel.runtime.mil.ops import convolution

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.sampled_from([1, 2, 4]), st.booleans(), st.data())
def test_convolution(space: int, batch: int, groups: int, bias: bool, data: st.DataObject) -> None:
    kernel, strides, dilations = (
        data.draw(st.lists(st.integers(1, m), min_size=space, max_size=space)) for m in (3, 2, 2)
    )
    pad = data.draw(st.lists(st.integers(0, 2), min_size=2 * space, max_size=2 * space))
    size = data.draw(st.lists(st.integers(5, 7), min_size=space, max_size=space))
    x, w = normal((batch, 4, *size)), normal((8, 4 // groups, *kernel), 1)
    b = normal((8,), 2) if bias else None
    (found,) = outputs(
        lambda x: mb.conv(
            x=x, weight=w, bias=b, strides=strides, pad_type="custom", pad=pad, dilations=dilations, groups=groups
        ),
        {"x": x},
    )
    ends = [n for i in reversed(range(space)) for n in pad[2 * i : 2 * i + 2]]
    padded = F.pad(torch.from_numpy(x), ends)
    want = CONV[space](
        padded, torch.from_numpy(w), None if b is None else torch.from_numpy(b), strides, 0, dilations, groups
    )
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (1, 6, 1, 5), (3, 6, 2, 5)])
def test_pointwise_convolution_with_and_without_stride(shape: tuple[int, ...]) -> None:
    x, w, b = normal(shape), normal((4, 6, 1, 1), 1), normal((4,), 2)
    plain, strided = outputs(
        lambda x: [mb.conv(x=x, weight=w, bias=b), mb.conv(x=x, weight=w, strides=[1, 2])], {"x": x}
    )
    t = torch.from_numpy(x)
    np.testing.assert_allclose(plain, F.conv2d(t, torch.from_numpy(w), torch.from_numpy(b)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(strided, F.conv2d(t, torch.from_numpy(w), stride=(1, 2)), rtol=1e-5, atol=1e-5)


def onnx_convolution(x: np.ndarray, weight: np.ndarray, **attributes: Any) -> np.ndarray:
    """ONNX's Conv, which knows both kinds of padding that keep the size."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape) for n, v in (("x", x), ("w", weight))]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"], **attributes)], "g", infos, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x, "w": weight})[0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.sampled_from([1, 2]), st.data())
def test_same_padding_keeps_the_size(space: int, lower: bool, groups: int, data: st.DataObject) -> None:
    kernel, strides, size = (
        data.draw(st.lists(st.integers(*m), min_size=space, max_size=space)) for m in ((1, 4), (1, 3), (4, 7))
    )
    dilations = data.draw(st.lists(st.integers(1, 2), min_size=space, max_size=space))
    x, w = normal((1, 4, *size)), normal((2, 4 // groups, *kernel), 1)
    pad_type, auto = ("same_lower", "SAME_LOWER") if lower else ("same", "SAME_UPPER")
    (found,) = outputs(
        lambda x: mb.conv(x=x, weight=w, strides=strides, dilations=dilations, groups=groups, pad_type=pad_type),
        {"x": x},
    )
    # onnxruntime pads so only without dilation: a kernel with zeros in between is the same.
    wide = np.zeros((*w.shape[:2], *((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))), np.float32)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = w
    want = onnx_convolution(x, wide, strides=strides, group=groups, auto_pad=auto)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


def test_what_does_not_fit() -> None:
    x, w = np.zeros((1, 4, 5), np.float32), np.zeros((2, 2, 3), np.float32)
    with pytest.raises(ValueError, match="groups"):
        convolution.conv(x, w)
    with pytest.raises(ValueError, match="pad_type"):
        convolution.conv(x, w, groups=2, pad_type="full")


@pytest.mark.parametrize("target", [ct.target.iOS15, ct.target.iOS18])
@pytest.mark.parametrize("each", [(), (6,)])
def test_quantized_weights(each: tuple[int, ...], target: ct.target) -> None:
    rng = np.random.default_rng(0)
    x, codes = normal((1, 4, 6, 5)), rng.integers(0, 255, (6, 2, 3, 2)).astype(np.uint8)
    scale, shift = (np.array(rng.uniform(-0.1, 0.1, each or (1,)), np.float32) for _ in range(2))
    (found,) = outputs(
        lambda x: mb.conv_quantized(
            x=x, weight=codes, quantization_type="linear", quant_scale=scale, quant_bias=shift, strides=[2, 1], groups=2
        ),
        {"x": x},
        target=target,
    )
    weight = torch.from_numpy(codes).float() * torch.from_numpy(scale)[:, None, None, None]
    weight += torch.from_numpy(shift)[:, None, None, None]
    want = F.conv2d(torch.from_numpy(x), weight, stride=(2, 1), groups=2)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=2e-5)
