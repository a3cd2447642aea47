"""Convolutions and pools, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mil_programs import mb, normal, outputs

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


@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
def test_same_padding_keeps_the_size(pad_type: str) -> None:
    x, w = normal((1, 2, 6, 7)), normal((3, 2, 2, 3), 1)
    (found,) = outputs(lambda x: mb.conv(x=x, weight=w, strides=[1, 2], pad_type=pad_type), {"x": x})
    pads = (1, 1, 0, 1) if pad_type == "same" else (1, 1, 1, 0)
    np.testing.assert_allclose(
        found, F.conv2d(F.pad(torch.from_numpy(x), pads), torch.from_numpy(w), stride=(1, 2)), rtol=1e-5, atol=1e-5
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 3), st.integers(1, 3), st.integers(0, 1), st.booleans(), st.booleans(), st.integers(5, 8))
def test_pools(kernel: int, stride: int, pad: int, ceil: bool, excluded: bool, size: int) -> None:
    # Without padding the format keeps a last window that begins beyond the input, and torch does not.
    starts = [-(-(n - kernel) // stride) * stride for n in (size, size + 1)]
    assume(not ceil or pad > 0 or all(s < n for s, n in zip(starts, (size, size + 1), strict=True)))
    x = normal((2, 3, size, size + 1), 3)
    args = {
        "kernel_sizes": [kernel, kernel], "strides": [stride, stride], "pad_type": "custom", "pad": [pad] * 4,
        "ceil_mode": ceil,
    }  # fmt: skip
    largest, mean = outputs(
        lambda x: [mb.max_pool(x=x, **args), mb.avg_pool(x=x, exclude_padding_from_average=excluded, **args)], {"x": x}
    )
    t = torch.from_numpy(x)
    np.testing.assert_array_equal(largest, F.max_pool2d(t, kernel, stride, pad, ceil_mode=ceil))
    if not ceil or excluded:  # what a partial window's mean counts as padding is not documented
        want = F.avg_pool2d(t, kernel, stride, pad, ceil_mode=ceil, count_include_pad=not excluded)
        np.testing.assert_allclose(mean, want, rtol=1e-5, atol=1e-6)
