"""Pooling over 1 to 3 spatial axes, one axis after the other."""

from __future__ import annotations

import math

import numpy as np

from satchel.runtime.mil.ops.base import Array, Ints, Op, pick
from satchel.runtime.mil.ops.convolution import Padding, padding


def _geometry(
    x: Array, kernel: Ints, strides: Ints | None, pad_type: str, pad: Ints | None, ceil_mode: bool
) -> tuple[Ints, Padding, Ints]:
    """(strides, padding, more padding at the end) of each axis."""
    strides = strides or (1,) * len(kernel)
    widths = padding(x.shape[2:], kernel, strides, pad_type, pad)
    return strides, widths, _extra(x, kernel, strides, widths, ceil_mode)


def _extra(x: Array, kernel: Ints, strides: Ints, widths: Padding, ceil_mode: bool) -> Ints:
    """How much more padding the last window of each axis needs, where it may be a partial one."""
    if not ceil_mode:
        return (0,) * len(kernel)
    each = zip(x.shape[2:], kernel, strides, widths, strict=True)
    return tuple(_ceil_extra(n, k, s, b, a) for n, k, s, (b, a) in each)


def _ceil_extra(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """The same for one axis. A window that would begin beyond the input is dropped, but, as the format says, only where
    there is padding at all."""
    space = size + before + after - kernel
    count = math.ceil(space / stride) + 1
    if before + after > 0 and (count - 1) * stride >= size + before:
        count -= 1
    return max(0, (count - 1) * stride - space)


def _pooled(
    x: Array, combine: np.ufunc, kernel: Ints, strides: Ints, widths: Padding, extra: Ints, value: float
) -> Array:
    """Windows of x, padded with `value`, combined by a ufunc."""
    ends = [(b, a + e) for (b, a), e in zip(widths, extra, strict=True)]
    if any(map(any, ends)):
        x = np.pad(x, [(0, 0), (0, 0), *ends], constant_values=np.float32(value))
    for axis, (size, stride) in enumerate(zip(kernel, strides, strict=True), start=2):
        x = _along(x, combine, axis, size, stride)
    return x


def _along(x: Array, combine: np.ufunc, axis: int, size: int, stride: int) -> Array:
    """Windows along one axis, combined: a new array."""
    count = (x.shape[axis] - size) // stride + 1
    before = (slice(None),) * axis
    if count == 1:
        return combine.reduce(x[(*before, slice(size))], axis=axis, keepdims=True)
    places = [x[(*before, slice(i, i + (count - 1) * stride + 1, stride))] for i in range(size)]
    y = combine(places[0], places[1]) if size > 1 else places[0].copy()
    for place in places[2:]:
        combine(y, place, out=y)
    return y


def max_pool(
    x: Array,
    *,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """The largest value of each window."""
    strides, widths, extra = _geometry(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return _pooled(x, np.maximum, kernel_sizes, strides, widths, extra, -np.inf)


def l2_pool(
    x: Array,
    *,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Array:
    """The square root of the sum of squares of each window."""
    strides, widths, extra = _geometry(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    return np.sqrt(_pooled(np.square(x), np.add, kernel_sizes, strides, widths, extra, 0))


def avg_pool(
    x: Array,
    *,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Array:
    """The mean of each window, its padding counted as zeros or left out.

    What ceil_mode adds at the end never counts, as in PyTorch, to which the format refers for it.
    """
    strides, widths, extra = _geometry(x, kernel_sizes, strides, pad_type, pad, ceil_mode)
    total = _pooled(x, np.add, kernel_sizes, strides, widths, extra, 0)
    counts = np.ones((1,) * x.ndim, np.int64)
    for axis, (size, stride, (before, after)) in enumerate(zip(kernel_sizes, strides, widths, strict=True), start=2):
        end = before + x.shape[axis]
        low, high = (before, end) if exclude_padding_from_average else (0, end + after)
        first = np.arange(total.shape[axis]) * stride
        inside = np.minimum(first + size, high) - np.maximum(first, low)
        counts = counts * np.maximum(inside, 1).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
    total /= counts.astype(np.float32)
    return total


OPS: dict[str, Op] = {
    "avg_pool": Op(avg_pool),
    "l2_pool": Op(l2_pool),
    "max_pool": pick(max_pool),
}
