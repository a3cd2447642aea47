"""Values that become 8-bit integers as the program runs, and back."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.dtypes import by_mil_name
from satchel.runtime.mil.ops.base import Array, Op, pick


def _along(values: Array, rank: int, axis: int | None) -> Array:
    """A scalar as it is; a vector as a column along `axis`."""
    if np.ndim(values) == 0:
        return values
    if axis is None:
        raise ValueError("a vector of scales or zero points without an axis")
    return values.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def quantize(
    input: Array, scale: Array, zero_point: Array | None = None, *, output_dtype: str, axis: int | None = None
) -> Array:
    """round(input / scale) + zero point, halves to even, held within the range of int8 or uint8."""
    dtype = np.dtype(by_mil_name(output_dtype).storage)
    codes = np.rint(input / _along(scale, input.ndim, axis))
    if zero_point is not None:
        codes += _along(zero_point, input.ndim, axis).astype(np.float32)
    limits = np.iinfo(dtype)
    return np.clip(codes, np.float32(limits.min), np.float32(limits.max)).astype(dtype)


def dequantize(input: Array, scale: Array, zero_point: Array | None = None, *, axis: int | None = None) -> Array:
    """scale * (input - zero point), one of each for the tensor or for each place along an axis."""
    values = input.astype(np.float32)
    if zero_point is not None:
        values -= _along(zero_point, input.ndim, axis).astype(np.float32)
    return values * _along(scale, input.ndim, axis)


OPS: dict[str, Op] = {
    "dequantize": Op(dequantize),
    "quantize": pick(quantize),
}
