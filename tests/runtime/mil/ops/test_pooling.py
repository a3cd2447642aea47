"""Pools, against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mil_programs import mb, normal, outputs

MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # sums of up to 4^3 numbers near 1


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("excluded", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.data())
def test_pools(padded: bool, excluded: bool, ceil: bool, space: int, data: st.DataObject) -> None:
    kernel, strides, size = (
        data.draw(st.lists(st.integers(*m), min_size=space, max_size=space)) for m in ((1, 4), (1, 3), (4, 7))
    )
    pad = [data.draw(st.integers(0, k // 2)) if padded else 0 for k in kernel]  # torch allows no more
    ceil = ceil and space < 3  # nor does the format in 3-D
    # Without padding the format keeps a last window that begins beyond the input, and torch does not.
    starts = [-(-(n + 2 * p - k) // s) * s for n, k, s, p in zip(size, kernel, strides, pad, strict=True)]
    assume(not ceil or all(p > 0 or b < n for n, p, b in zip(size, pad, starts, strict=True)))
    x = normal((2, 3, *size), 3)
    args = {
        "kernel_sizes": kernel, "strides": strides, "pad_type": "custom" if padded else "valid", "ceil_mode": ceil,
        **({"pad": np.repeat(pad, 2)} if padded else {}),
    }  # fmt: skip

    def build(x: mb.Var) -> list[mb.Var]:
        average = mb.avg_pool(x=x, exclude_padding_from_average=excluded, **args)
        return [mb.max_pool(x=x, **args), average, *([mb.l2_pool(x=x, **args)] if space < 3 else [])]

    found = outputs(build, {"x": x})
    t = torch.from_numpy(x)
    np.testing.assert_array_equal(found[0], MAX[space](t, kernel, strides, pad, ceil_mode=ceil))
    want = AVERAGE[space](t, kernel, strides, pad, ceil_mode=ceil, count_include_pad=not excluded)
    np.testing.assert_allclose(found[1], want, **CLOSE)
    if space < 3:  # a padded mean with its divisor undone, in double
        wide = F.pad(t.double().square(), [e for p in reversed(pad) for e in (p, p)])
        mean = AVERAGE[space](wide, kernel, strides, ceil_mode=False)
        both = tuple(slice(0, n) for n in mean.shape[2:])  # whole windows
        np.testing.assert_allclose(found[2][(..., *both)], (mean * np.prod(kernel)).sqrt(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pad_type", ["same", "same_lower"])
@pytest.mark.parametrize("excluded", [False, True])
def test_same_padding(pad_type: str, excluded: bool) -> None:
    x = normal((1, 2, 6, 7), 1)
    args = {"kernel_sizes": [2, 4], "strides": [1, 2], "pad_type": pad_type}
    largest, mean, root = outputs(
        lambda x: [
            mb.max_pool(x=x, **args),
            mb.avg_pool(x=x, exclude_padding_from_average=excluded, **args),
            mb.l2_pool(x=x, **args),
        ],
        {"x": x},
    )
    ends = (1, 2, 0, 1) if pad_type == "same" else (2, 1, 1, 0)
    t = torch.from_numpy(x)
    wide, ones = F.pad(t, ends), F.pad(torch.ones_like(t), ends)
    sums = [8 * F.avg_pool2d(v, (2, 4), (1, 2)) for v in (wide, ones, wide.square())]
    np.testing.assert_array_equal(largest, F.max_pool2d(F.pad(t, ends, value=-np.inf), (2, 4), (1, 2)))
    np.testing.assert_allclose(mean, sums[0] / (sums[1] if excluded else 8), **CLOSE)
    np.testing.assert_allclose(root, sums[2].sqrt(), **CLOSE)


def test_asymmetric_padding_and_one_window() -> None:
    x = normal((2, 3, 5, 6), 2)
    one, asymmetric = outputs(
        lambda x: [
            mb.avg_pool(x=x, kernel_sizes=[5, 6], pad_type="valid"),
            mb.max_pool(x=x, kernel_sizes=[3, 2], strides=[2, 2], pad_type="custom", pad=[0, 1, 1, 0]),
        ],
        {"x": x},
    )
    t = torch.from_numpy(x)
    np.testing.assert_allclose(one, t.mean((2, 3), keepdim=True), **CLOSE)
    np.testing.assert_array_equal(asymmetric, F.max_pool2d(F.pad(t, (1, 0, 0, 1), value=-np.inf), (3, 2), 2))
