"""Convolution over 1 to 3 spatial axes."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from satchel.runtime.mil.ops.base import Array, Ints, Op, contract

Padding = list[tuple[int, int]]
COLUMNS = 1 << 22  # elements of windows that are laid out as columns at a time
BLOCK = 1 << 16  # elements of a depthwise result that are summed up at a time
PAD_TYPES = ("valid", "same", "same_lower", "custom")


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """Convolution of x [n, in, *space] with weight [out, in / groups, *kernel], plus bias [out]."""
    pointwise = groups == 1 and weight.size == weight.shape[0] * weight.shape[1]
    if pointwise and (strides is None or max(strides) == 1) and (pad is None or max(pad) == 0):
        y = _pointwise(x, weight.reshape(weight.shape[:2]))
    else:
        if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
            raise ValueError(f"{x.shape[1]} channels and a weight of shape {weight.shape} in {groups} groups")
        ones = (1,) * (x.ndim - 2)
        strides, dilations = strides or ones, dilations or ones
        kernel = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
        padded = _padded(x, padding(x.shape[2:], kernel, strides, pad_type, pad))
        y = _general(padded, weight, kernel, strides, dilations, groups)
    return y if bias is None else y + bias.reshape((1, -1) + (1,) * (x.ndim - 2))


def _pointwise(x: Array, weight: Array) -> Array:
    """A 1x1 convolution: one product for each instance."""
    positions = x.size // (x.shape[0] * x.shape[1])
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    if positions == 1 and x.shape[0] == 1:
        return np.dot(weight, x.reshape(-1)).reshape(shape)
    return np.matmul(weight, np.ascontiguousarray(x).reshape(x.shape[0], x.shape[1], positions)).reshape(shape)


def _general(x: Array, weight: Array, kernel: Ints, strides: Ints, dilations: Ints, groups: int) -> Array:
    """Windows of the padded input as columns, one product for each group, some rows of the result at a time."""
    windows = _windows(x, kernel, strides, dilations)
    if groups == x.shape[1]:
        return _depthwise(windows, weight)
    space = len(kernel)
    size = windows.shape[2 : 2 + space]
    rows = (0, 1, *range(2 + space, 2 + 2 * space))  # instance, channel, kernel: before the places, whose rows are runs
    turned = windows.transpose(*rows, *range(2, 2 + space))
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1)
    result = np.empty((x.shape[0], groups, matrices.shape[1], *size), np.result_type(x, weight))
    step = max(1, COLUMNS * size[0] // max(1, turned.size))
    for start in range(0, size[0], step):
        part = turned[(..., slice(start, start + step), *(slice(None),) * (space - 1))]
        columns = part.reshape(x.shape[0], groups, matrices.shape[2], -1)
        result[:, :, :, start : start + step] = np.matmul(matrices, columns).reshape(*result.shape[:3], -1, *size[1:])
    return result.reshape(x.shape[0], weight.shape[0], *size)


def _depthwise(windows: Array, weight: Array) -> Array:
    """A kernel, or several, for each channel: the sum over the kernel's places of a shifted input times a number.

    Some channels at a time, so that sums stay in the cache.
    """
    instances, channels, *rest = windows.shape
    size, kernel = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    weights: Array = weight.reshape(channels, -1, *kernel)
    result = np.zeros((instances, channels, weights.shape[1], *size), np.result_type(windows, weight))
    step = max(1, BLOCK * channels // max(1, result.size))
    for start in range(0, channels, step):
        part = slice(start, start + step)
        for place in np.ndindex(*kernel):
            factor = weights[(part, slice(None), *place)].reshape((-1, weights.shape[1]) + (1,) * len(size))
            result[:, part] += windows[(slice(None), part, ..., *place)][:, :, None] * factor
    return result.reshape(instances, -1, *size)


def _padded(x: Array, pairs: Padding) -> Array:
    """X with zeros around it."""
    if not any(n for pair in pairs for n in pair):
        return x
    shape = [n + before + after for n, (before, after) in zip(x.shape[2:], pairs, strict=True)]
    result: Array = np.zeros((*x.shape[:2], *shape), x.dtype)
    result[(..., *(slice(b, b + n) for n, (b, _) in zip(x.shape[2:], pairs, strict=True)))] = x
    return result


def _windows(x: Array, kernel: Ints, strides: Ints, dilations: Ints) -> Array:
    """[n, channels, *out, *kernel], a view."""
    axes = tuple(range(2, x.ndim))
    windows = sliding_window_view(x, kernel, axis=axes)
    steps = tuple(slice(None, None, s) for s in strides) + tuple(slice(None, None, d) for d in dilations)
    return windows[(slice(None), slice(None), *steps)]


def padding(size: Ints, kernel: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> Padding:
    """(before, after) of every spatial axis; `kernel` is the size with its dilation."""
    pad_type = pad_type.lower()
    if pad_type not in PAD_TYPES:
        raise ValueError(f"pad_type {pad_type!r} is none of {PAD_TYPES}")
    if pad_type == "custom" and pad is not None:
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(size))]
    if pad_type in ("custom", "valid"):
        return [(0, 0)] * len(size)
    total = [max(0, s * math.ceil(n / s) - n + k - s) for n, k, s in zip(size, kernel, strides, strict=True)]
    if pad_type == "same":
        return [(t // 2, t - t // 2) for t in total]
    return [(t - t // 2, t // 2) for t in total]


def conv_quantized(
    x: Array,
    weight: Array,
    quant_scale: Array,
    quant_bias: Array,
    bias: Array | None = None,
    *,
    quantization_type: str,
    nbits: int = 8,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """Convolution with weight * quant_scale + quant_bias, one of each for the tensor or for each output channel.

    The op has no place for the table of the quantization type "lut", so that no program can hold one.
    """
    if quantization_type != "linear":
        raise ValueError(f"quantization type {quantization_type!r}, of which only 'linear' is defined")
    column = (-1,) + (1,) * (weight.ndim - 1)
    values = weight.astype(np.float32) * quant_scale.reshape(column) + quant_bias.reshape(column)
    bias = None if bias is None else bias.astype(np.float32)
    return conv(x, values, bias, strides=strides, pad_type=pad_type, pad=pad, dilations=dilations, groups=groups)


OPS: dict[str, Op] = {
    "conv": contract(conv),
    "conv_quantized": contract(conv_quantized),
}
