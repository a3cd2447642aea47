"""Transposed convolutions, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
# Sums of up to 4 x 3^3 products of normal numbers, in another order than torch's.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans(), st.data())
def test_transposed_convolution(
    space: int, batch: int, groups: int, bias: bool, padded: bool, data: st.DataObject
) -> None:
    def draw(low: int, high: int, count: int = space) -> list[int]:
        return data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    kernel, strides, dilations, size = draw(1, 3), draw(1, 3), draw(1, 2), draw(1, 5)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)]
    pad = draw(0, 2, 2 * space) if padded else [0] * (2 * space)
    assume(all(f > b + a for f, b, a in zip(full, pad[::2], pad[1::2], strict=True)))
    x, w = normal((batch, 4, *size), 1), normal((4, 6 // min(groups, 2), *kernel), 2)
    b = normal((w.shape[1] * groups,), 3) if bias else None
    custom = {"pad_type": "custom", "pad": pad} if padded else {}
    (found,) = outputs(
        lambda x: mb.conv_transpose(
            x=x, weight=w, bias=b, strides=strides, dilations=dilations, groups=groups, **custom
        ),
        {"x": x},
    )
    t = [None if v is None else torch.from_numpy(v) for v in (x, w, b)]
    want = TRANSPOSED[space](*t, stride=strides, groups=groups, dilation=dilations)
    inside = tuple(slice(b, f - a) for f, b, a in zip(full, pad[::2], pad[1::2], strict=True))
    np.testing.assert_allclose(found, want[(slice(None), slice(None), *inside)], **CLOSE)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.booleans(), st.data())
def test_output_shape_larger_by_torch_s_output_padding(
    space: int, groups: int, constant: bool, data: st.DataObject
) -> None:
    strides = data.draw(st.lists(st.integers(1, 3), min_size=space, max_size=space))
    extra = [data.draw(st.integers(0, s - 1)) for s in strides]
    pad = data.draw(st.integers(0, 1))
    x, w, b = normal((2, 4, *[4] * space), 1), normal((4, 3, *[3] * space), 2), normal((3 * groups,), 3)
    want = TRANSPOSED[space](
        *(torch.from_numpy(v) for v in (x, w, b)), stride=strides, padding=pad, output_padding=extra, groups=groups
    )

    def build(x: mb.Var, w: mb.Var) -> mb.Var:  # from iOS 17 the weight may be computed
        return mb.conv_transpose(
            x=x, weight=w_constant if constant else w, bias=b, strides=strides, pad_type="custom",
            pad=[pad] * (2 * space), output_shape=list(want.shape), groups=groups,
        )  # fmt: skip

    w_constant = w
    (found,) = outputs(build, {"x": x, "w": w}, target=ct.target.iOS17)
    np.testing.assert_allclose(found, want, **CLOSE)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.data())
def test_same_padding_is_the_gradient_of_a_convolution_with_same_padding(
    space: int, given_shape: bool, data: st.DataObject
) -> None:
    """A convolution with "same" padding maps `big` to ceil(big / stride); its transpose maps back to `big`."""
    strides, kernel, small = (data.draw(st.lists(st.integers(1, m), min_size=space, max_size=space)) for m in (3, 4, 4))
    big = [
        n * s - (data.draw(st.integers(0, s - 1)) if given_shape else 0) for n, s in zip(small, strides, strict=True)
    ]
    x, w = normal((1, 3, *small), 1), normal((3, 2, *kernel), 2)
    shape = {"output_shape": [1, 2, *big]} if given_shape else {}
    (found,) = outputs(lambda x: mb.conv_transpose(x=x, weight=w, strides=strides, pad_type="same", **shape), {"x": x})
    y = torch.zeros((1, 2, *big), requires_grad=True)
    totals = [max(0, (n - 1) * s + k - m) for n, s, k, m in zip(small, strides, kernel, big, strict=True)]
    ends = [e for t in reversed(totals) for e in (t // 2, t - t // 2)]
    forward = CONV[space](F.pad(y, ends), torch.from_numpy(w), stride=strides)
    (want,) = torch.autograd.grad(forward, y, torch.from_numpy(x))
    np.testing.assert_allclose(found, want, **CLOSE)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fp16_weights(precision: str) -> None:
    x, w = (normal(s, i).astype(np.float16) for i, s in enumerate([(1, 4, 3, 3), (4, 2, 2, 2)]))
    (found,) = outputs(lambda x: mb.conv_transpose(x=x, weight=w, strides=[2, 2]), {"x": x}, precision=precision)
    want = F.conv_transpose2d(*(torch.from_numpy(v).float() for v in (x, w)), stride=2).numpy()
    close = CLOSE if precision == "fp32" else {"rtol": 2.0**-10, "atol": 1e-4}
    np.testing.assert_allclose(found, want, **close)
