"""Transposed convolution over 1 to 3 spatial axes."""

from __future__ import annotations

from itertools import product

import numpy as np

from satchel.runtime.mil.ops.base import Array, Ints, Op, contract
from satchel.runtime.mil.ops.convolution import PAD_TYPES


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Array:
    """Each element of x [n, in, *space] adds its multiple of the weight [in, out / groups, *kernel] to the result.

    The result is cropped by `pad`; with pad_type "same" to stride times the input's size; to `output_shape` where that
    is given, which may also be larger, with nothing but the bias at the ends.
    """
    pad_type = pad_type.lower()
    if pad_type not in PAD_TYPES:
        raise ValueError(f"pad_type {pad_type!r} is none of {PAD_TYPES}")
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    kernel = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    full = tuple((n - 1) * s + k for n, s, k in zip(x.shape[2:], strides, kernel, strict=True))
    wanted = output_shape[2:] if output_shape else _size(x.shape[2:], full, strides, pad_type, pad)
    before = _before(full, wanted, pad_type, pad)
    room = tuple(max(f, b + w) for f, b, w in zip(full, before, wanted, strict=True))
    y = _scatter(x, weight, room, strides, dilations, groups)
    y = y[(slice(None), slice(None), *(slice(b, b + w) for b, w in zip(before, wanted, strict=True)))]
    return y if bias is None else y + bias.reshape((1, -1) + (1,) * len(wanted))


def _size(size: Ints, full: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> Ints:
    """Spatial size of the result where it is not given."""
    if pad_type in ("same", "same_lower"):
        return tuple(n * s for n, s in zip(size, strides, strict=True))
    if pad_type == "custom" and pad is not None:
        return tuple(f - pad[2 * i] - pad[2 * i + 1] for i, f in enumerate(full))
    return full


def _before(full: Ints, wanted: Ints, pad_type: str, pad: Ints | None) -> Ints:
    """How much is cropped at the beginning of each axis."""
    if pad_type == "custom" and pad is not None:
        return pad[::2]
    extra = [max(0, f - w) for f, w in zip(full, wanted, strict=True)]
    if pad_type == "same":
        return tuple(e // 2 for e in extra)
    return tuple(e - e // 2 if pad_type == "same_lower" else 0 for e in extra)


def _scatter(x: Array, weight: Array, room: Ints, strides: Ints, dilations: Ints, groups: int) -> Array:
    """All products, then for each place of the kernel one strided addition into an array of spatial size `room`."""
    n, channels, *space = x.shape
    out, kernel = weight.shape[1], weight.shape[2:]
    places = int(np.prod(kernel))
    turned = weight.reshape(groups, channels // groups, out * places).transpose(0, 2, 1)
    columns = np.ascontiguousarray(x).reshape(n, groups, channels // groups, -1)
    parts = np.matmul(np.ascontiguousarray(turned), columns).reshape(n, groups * out, places, *space)
    y = np.zeros((n, groups * out, *room), np.float32)
    for i, place in enumerate(product(*map(range, kernel))):
        starts = [p * d for p, d in zip(place, dilations, strict=True)]
        target = tuple(slice(b, b + (m - 1) * s + 1, s) for b, m, s in zip(starts, space, strides, strict=True))
        y[(slice(None), slice(None), *target)] += parts[:, :, i]
    return y


OPS: dict[str, Op] = {
    "conv_transpose": contract(conv_transpose),
}
