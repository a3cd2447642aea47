"""How many elements an op's result has, for ops whose result can be far larger than their inputs.

A function here has the parameters of the op's own function (see ops/) that decide the size. It may overestimate, and
need not be right where the op is going to fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from satchel.runtime.mil.ops.base import Array, Ints
from satchel.runtime.mil.ops.convolution import padding
from satchel.runtime.mil.ops.lists import TensorList
from satchel.runtime.mil.ops.resize import scaled

# Elementwise ops of two arrays x and y.
BROADCASTING = frozenset(
    {
        "add", "equal", "floor_div", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_or",
        "logical_xor", "maximum", "minimum", "mod", "mul", "not_equal", "pow", "real_div", "sub",
    }
)  # fmt: skip


def broadcast_size(*arrays: Array) -> int:
    """Elements of arrays broadcast together; ValueError where they do not go together."""
    return math.prod(np.broadcast_shapes(*(np.shape(a) for a in arrays)))


def _select(cond: Array, a: Array, b: Array) -> int:
    return broadcast_size(cond, a, b)


def _concat(*values: Array, **_: Any) -> int:
    return sum(np.size(v) for v in values)


def _fill(value: Array | None = None, *, shape: Ints) -> int:
    return math.prod(shape)


def _random(*, shape: Ints, **_: Any) -> int:
    return 2 * math.prod(shape)  # drawn in fp64


def _categorical(x: Array, *, size: int = 1, **_: Any) -> int:
    return max(1, x.size // x.shape[-1]) * size * 2


def _tile(x: Array, *, reps: Ints) -> int:
    return int(np.size(x)) * math.prod(reps)


def _pad(x: Array, *, pad: Ints, **_: Any) -> int:
    added = [0] * (2 * x.ndim - len(pad)) + list(pad)
    return math.prod(max(0, n + added[2 * i] + added[2 * i + 1]) for i, n in enumerate(x.shape))


def _range(end: Array, start: Array, step: Array) -> int:
    count = (float(end) - float(start)) / float(step)
    return int(count) + 1 if math.isfinite(count) else 1 << 62


def _one_hot(indices: Array, *_: Any, one_hot_vector_size: int, **__: Any) -> int:
    return int(np.size(indices)) * one_hot_vector_size


def _non_zero(x: Array) -> int:
    return int(np.size(x)) * max(1, np.ndim(x)) * 2


def _gather(x: Array, indices: Array, *, axis: int = 0, batch_dims: int = 0, **_: Any) -> int:
    together = math.prod(x.shape[:batch_dims])
    return x.size // max(1, x.shape[axis] * together) * int(np.size(indices))


def _gather_nd(x: Array, indices: Array, *, batch_dims: int = 0, **_: Any) -> int:
    deep = indices.shape[-1]
    return indices.size // max(1, deep) * math.prod(x.shape[batch_dims + deep :])


def _along_axis(x: Array, indices: Array, *, axis: int = 0, **_: Any) -> int:
    return x.size // max(1, x.shape[axis]) * indices.shape[axis] * 2  # indices are broadcast, 8 bytes each


# ---- products ------------------------------------------------------------------------------------------------------


def _matmul(x: Array, y: Array, *, transpose_x: bool = False, transpose_y: bool = False) -> int:
    if x.ndim < 2 or y.ndim < 2:
        return max(x.size, y.size)
    rows, columns = x.shape[-1 if transpose_x else -2], y.shape[-2 if transpose_y else -1]
    return math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2])) * rows * columns


def _linear(x: Array, weight: Array, bias: Array | None = None) -> int:
    return x.size // max(1, weight.shape[1]) * _widest(weight.shape[0], bias)


def _einsum(*values: Array, equation: str) -> int:
    terms, _, out = equation.replace(" ", "").partition("->")
    if "." in terms:
        return max(v.size for v in values)
    lengths: dict[str, int] = {}
    for term, value in zip(terms.split(","), values, strict=False):
        lengths |= dict(zip(term, value.shape, strict=False))
    return math.prod(lengths.get(c, 1) for c in out)


def _attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> int:
    lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    masked = attn_mask.shape[:-2] if attn_mask is not None and attn_mask.ndim > 2 else ()
    lead = np.broadcast_shapes(lead, masked)
    return math.prod(lead) * query.shape[-2] * max(key.shape[-2], value.shape[-1])


def _recurrent(x: Array, initial_h: Array, *arrays: Array | None, **_: Any) -> int:
    rows = x.size // max(1, x.shape[-1])
    widest = max((a.shape[0] for a in arrays if a is not None and a.ndim), default=1)
    return rows * widest + 2 * initial_h.size


def _list(*elem_shape: Any, **_: Any) -> int:
    return math.prod(int(np.asarray(n).reshape(-1)[0]) for n in elem_shape if not isinstance(n, str))


def _list_gather(ls: TensorList, indices: Array) -> int:
    return int(np.size(indices)) * max((np.size(e) for e in ls.elements if e is not None), default=0)


def _widest(count: int, vector: Array | None) -> int:
    return count if vector is None else max(count, int(np.size(vector)))


# ---- images --------------------------------------------------------------------------------------------------------


def _conv(
    x: Array, weight: Array, bias: Array | None = None, *, strides: Ints | None = None, pad_type: str = "valid",
    pad: Ints | None = None, dilations: Ints | None = None, groups: int = 1,
) -> int:  # fmt: skip
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    kernel = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    padded = _padded(x.shape[2:], kernel, strides, pad_type, pad)
    out = [max(0, n - k) // s + 1 for n, k, s in zip(padded, kernel, strides, strict=True)]
    return max(math.prod(x.shape[:2]) * math.prod(padded), x.shape[0] * _widest(weight.shape[0], bias) * math.prod(out))


def _padded(size: Ints, kernel: Ints, strides: Ints, pad_type: str, pad: Ints | None) -> Ints:
    return tuple(n + b + a for n, (b, a) in zip(size, padding(size, kernel, strides, pad_type, pad), strict=True))


def _pool(
    x: Array, *, kernel_sizes: Ints, strides: Ints | None = None, pad_type: str = "valid", pad: Ints | None = None,
    **_: Any,
) -> int:  # fmt: skip
    strides = strides or (1,) * len(kernel_sizes)
    padded = _padded(x.shape[2:], kernel_sizes, strides, pad_type, pad)
    return math.prod(x.shape[:2]) * math.prod(n + s for n, s in zip(padded, strides, strict=True))


def _conv_transpose(
    x: Array, weight: Array, bias: Array | None = None, *, pad: Ints | None = None, output_shape: Ints | None = None,
    strides: Ints | None = None, dilations: Ints | None = None, groups: int = 1, **_: Any,
) -> int:  # fmt: skip
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    sizes = zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True)
    full = [(n - 1) * s + (k - 1) * d + 1 + s for n, k, s, d in sizes]
    channels = _widest(weight.shape[1] * groups, bias)
    cropped = sum(abs(p) for p in pad or ())
    wanted = math.prod(abs(d) + cropped for d in output_shape[2:]) if output_shape else 0
    products = x.size // max(1, x.shape[1]) * channels * math.prod(weight.shape[2:])
    return max(x.shape[0] * channels * max(math.prod(full), wanted), products)


def _upsample(x: Array, *, scale_factor_height: float = 1, scale_factor_width: float = 1, **_: Any) -> int:
    height, width = scaled(x.shape[-2], scale_factor_height), scaled(x.shape[-1], scale_factor_width)
    return _image(x, height, width)


def _image(x: Array, height: int, width: int) -> int:
    """Elements of x with another size, one axis resized before the other."""
    return max(1, math.prod(x.shape[:-2])) * max(height, x.shape[-2]) * max(width, x.shape[-1])


def _resize_to(x: Array, *, target_size_height: int = 1, target_size_width: int = 1, **_: Any) -> int:
    return _image(x, target_size_height, target_size_width)


def _resize(x: Array, *, shape: Ints, resized_dims: int, **_: Any) -> int:
    last = min(max(0, resized_dims), len(shape), x.ndim)
    sizes = [max(n, s) for n, s in zip(x.shape[x.ndim - last :], shape[len(shape) - last :], strict=True)]
    return math.prod(x.shape[: x.ndim - last]) * math.prod(sizes)


def _crop_resize(
    x: Array, roi: Array | None = None, boxes: Array | None = None, *_: Any, target_height: int = 1,
    target_width: int = 1, **__: Any,
) -> int:  # fmt: skip
    given = boxes if roi is None else roi
    count = 1 if given is None else len(given) * (len(x) if roi is not None and roi.size == 4 * len(roi) else 1)
    area = max(target_height, 1) * max(target_width, 1)
    return count * math.prod(x.shape[1:2]) * max(area, target_height * x.shape[-1]) * 2


def _resample(x: Array, coordinates: Array, **_: Any) -> int:
    return max(coordinates.size, coordinates.size // 2 * x.shape[1]) * 2


def _affine(x: Array, transform_matrix: Array, *, output_height: int, output_width: int, **_: Any) -> int:
    area = max(output_height, 0) * max(output_width, 0)
    return max(output_height, output_width, area * x.shape[0] * max(3, x.shape[1])) * 2


def _windows(x: Array, *, axis: int, size: int, stride: int = 1) -> int:
    return x.size // max(1, x.shape[axis]) * (max(0, x.shape[axis] - size) // stride + 1) * size


def _space_to_batch(x: Array, *, block_shape: Ints, paddings: Ints) -> int:
    return _pad(x, pad=paddings)


def _suppression(boxes: Array, scores: Array, *, max_boxes: int, **_: Any) -> int:
    return max_boxes * len(boxes) * (4 + max(scores.shape[1:]))


# ---- vectors along an axis -----------------------------------------------------------------------------------------


def _per_channel(x: Array, *vectors: Array | None, axis: int | None = 1, **_: Any) -> int:
    """An axis of length 1 takes the length of a vector that is laid along it."""
    if axis is None or x.ndim == 0:
        return int(x.size)
    channels = x.shape[axis] if -x.ndim <= axis < x.ndim else 1
    return x.size // max(1, channels) * max(channels, *(int(np.size(v)) for v in vectors if v is not None), 1)


def _normalized(x: Array, *vectors: Array | None, **_: Any) -> int:
    return _per_channel(x, *vectors)


def _response(x: Array, *, size: int, **_: Any) -> int:
    return x.size // max(1, x.shape[1]) * (x.shape[1] + size)


def _dequantized(
    input: Array, scale: Array, zero_point: Array | None = None, *, axis: int | None = None, **_: Any
) -> int:
    return _per_channel(input, scale, zero_point, axis=axis)


# ---- compressed constants ------------------------------------------------------------------------------------------


def _affine_constant(quantized_data: Array, zero_point: Array, scale: Array, *, axis: int) -> int:
    return _per_channel(quantized_data, zero_point, scale, axis=axis)


def _looked_up(indices: Array, lut: Array, *, shape: Ints | None = None, vector_axis: int | None = None) -> int:
    return math.prod(shape) if shape is not None else indices.size * lut.shape[-1]


def _looked_up_sparse(indices_mask: Array, indices_nonzero_data: Array, lut: Array, **_: Any) -> int:
    return indices_nonzero_data.size * lut.shape[-1]


SIZES: dict[str, Callable[..., int]] = {
    "affine": _affine,
    "avg_pool": _pool,
    "batch_norm": _normalized,
    "concat": _concat,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "crop_resize": _crop_resize,
    "dequantize": _dequantized,
    "einsum": _einsum,
    "fill": _fill,
    "gather": _gather,
    "gather_along_axis": _along_axis,
    "gather_nd": _gather_nd,
    "gru": _recurrent,
    "instance_norm": _normalized,
    "l2_pool": _pool,
    "linear": _linear,
    "list_gather": _list_gather,
    "local_response_norm": _response,
    "lstm": _recurrent,
    "make_list": _list,
    "matmul": _matmul,
    "max_pool": _pool,
    "non_maximum_suppression": _suppression,
    "non_zero": _non_zero,
    "one_hot": _one_hot,
    "pad": _pad,
    "prelu": _normalized,
    "quantize": _dequantized,
    "random_bernoulli": _random,
    "random_categorical": _categorical,
    "random_normal": _random,
    "random_uniform": _random,
    "range_1d": _range,
    "resample": _resample,
    "resize": _resize,
    "resize_bilinear": _resize_to,
    "resize_nearest_neighbor": _resize_to,
    "rnn": _recurrent,
    "scaled_dot_product_attention": _attention,
    "select": _select,
    "sliding_windows": _windows,
    "space_to_batch": _space_to_batch,
    "stack": _concat,
    "tile": _tile,
    "upsample_bilinear": _upsample,
    "upsample_nearest_neighbor": _upsample,
}

# Compressed constants, whose result must have the declared size.
CONSTANT_SIZES: dict[str, Callable[..., int]] = {
    "constexpr_affine_dequantize": _affine_constant,
    "constexpr_lut_to_dense": _looked_up,
    "constexpr_lut_to_sparse": _looked_up_sparse,
}
