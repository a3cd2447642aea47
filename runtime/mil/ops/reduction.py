"""Reductions along axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from satchel.runtime.mil.dtypes import by_mil_name
from satchel.runtime.mil.ops.base import Array, Ints, Op, pick

# The ufuncs' own reductions: the methods of arrays go through Python first.
SUM: Any = np.add.reduce
PRODUCT: Any = np.multiply.reduce
MAX: Any = np.maximum.reduce
MIN: Any = np.minimum.reduce


def reduce_sum(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Sum."""
    return SUM(x, axis=axes, keepdims=keep_dims, dtype=x.dtype)


def reduce_mean(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Mean."""
    total = reduce_sum(x, axes=axes, keep_dims=keep_dims)
    return np.asarray(total / (x.size // max(1, total.size)), x.dtype)


def reduce_max(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Largest value."""
    return MAX(x, axis=axes, keepdims=keep_dims)


def reduce_min(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Smallest value."""
    return MIN(x, axis=axes, keepdims=keep_dims)


def reduce_prod(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Product."""
    return PRODUCT(x, axis=axes, keepdims=keep_dims, dtype=x.dtype)


def reduce_sum_square(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Sum of squares."""
    return reduce_sum(x * x, axes=axes, keep_dims=keep_dims)


def reduce_l1_norm(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Sum of absolute values."""
    return reduce_sum(np.abs(x), axes=axes, keep_dims=keep_dims)


def reduce_l2_norm(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Square root of the sum of squares."""
    return np.sqrt(reduce_sum_square(x, axes=axes, keep_dims=keep_dims)).astype(x.dtype, copy=False)


def reduce_log_sum(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Logarithm of the sum."""
    return np.log(reduce_sum(x, axes=axes, keep_dims=keep_dims)).astype(x.dtype, copy=False)


def reduce_log_sum_exp(x: Array, *, axes: Ints | None = None, keep_dims: bool = False) -> Array:
    """Logarithm of the sum of exponentials, without overflow."""
    top = x.max(axis=axes, keepdims=True)
    top = np.where(np.isfinite(top), top, x.dtype.type(0))
    total = (np.log(np.exp(x - top).sum(axis=axes, keepdims=True)) + top).astype(x.dtype, copy=False)
    return total if keep_dims else total.squeeze(axes)


def reduce_argmax(x: Array, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Array:
    """Index of the largest value, the first where several are."""
    return np.argmax(x, axis=axis, keepdims=keep_dims).astype(by_mil_name(output_dtype).storage)


def reduce_argmin(x: Array, *, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Array:
    """Index of the smallest value, the first where several are."""
    return np.argmin(x, axis=axis, keepdims=keep_dims).astype(by_mil_name(output_dtype).storage)


def cumsum(x: Array, *, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Array:
    """Running sum; exclusive leaves an element out of its own sum, reverse runs from the end."""
    data = np.flip(x, axis) if reverse else x
    total = np.zeros(data.shape, x.dtype)
    if exclusive:
        before = (slice(None),) * (axis % x.ndim)
        np.cumsum(data[(*before, slice(-1))], axis=axis, out=total[(*before, slice(1, None))])
    else:
        np.cumsum(data, axis=axis, out=total)
    return np.flip(total, axis) if reverse else total


def _ranked(x: Array, axis: int, ascending: bool) -> Array:
    """Indices that sort along an axis, equal values in their order."""
    if not ascending:
        x = -x if x.dtype.kind == "f" else ~x  # ~x turns integers around without overflow, and falsehood into truth
    return np.argsort(x, axis=axis, kind="stable")


def topk(
    x: Array,
    *,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Array, ...] | Array:
    """The k largest (or smallest) values along an axis, in order, and where they are."""
    k = x.shape[axis] if k == -1 else k
    if not -1 <= k <= x.shape[axis]:
        raise ValueError(f"the largest {k} of {x.shape[axis]}")
    index = np.take(_ranked(x, axis, ascending), np.arange(k), axis=axis)
    values = np.take_along_axis(x, index, axis=axis)
    return (values, index.astype(by_mil_name(output_indices_dtype).storage)) if return_indices else values


def argsort(x: Array, *, axis: int = -1, ascending: bool = False) -> Array:
    """Indices that sort along an axis, equal values in their order."""
    return _ranked(x, axis, ascending).astype(np.int32)


OPS: dict[str, Op] = {
    "argsort": pick(argsort),
    "cumsum": Op(cumsum),
    "reduce_argmax": pick(reduce_argmax),
    "reduce_argmin": pick(reduce_argmin),
    "reduce_l1_norm": Op(reduce_l1_norm),
    "reduce_l2_norm": Op(reduce_l2_norm),
    "reduce_log_sum": Op(reduce_log_sum),
    "reduce_log_sum_exp": Op(reduce_log_sum_exp),
    "reduce_max": pick(reduce_max),
    "reduce_mean": Op(reduce_mean),
    "reduce_min": pick(reduce_min),
    "reduce_prod": Op(reduce_prod),
    "reduce_sum": Op(reduce_sum),
    "reduce_sum_square": Op(reduce_sum_square),
    "topk": pick(topk),
}
