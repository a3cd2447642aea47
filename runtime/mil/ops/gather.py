"""Gathers and scatters.

Negative indices count from the end, as the format says before iOS 17. Since then they are out of bounds: with
`validate_indices` they are refused here too, without it the format leaves open what they do. Indices beyond the end
are always refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from satchel.runtime.mil.ops.base import Array, Op, pick
from satchel.runtime.mil.ops.elementwise import real_div


def gather(x: Array, indices: Array, *, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False) -> Array:
    """Slices of x along an axis; the first `batch_dims` axes of x and indices go together."""
    if validate_indices:
        _validate(indices, x.shape[axis])
    if batch_dims == 0:
        return np.take(x, indices, axis)
    indices = np.asarray(indices)
    axis = axis % x.ndim - batch_dims
    lead = x.shape[:batch_dims]
    parts = zip(_merge(x, batch_dims), _merge(indices, batch_dims), strict=True)
    taken = np.stack([np.take(a, i, axis) for a, i in parts])
    return taken.reshape(lead + taken.shape[1:])


def gather_nd(x: Array, indices: Array, *, batch_dims: int = 0, validate_indices: bool = False) -> Array:
    """Slices of x at index vectors, which lie along the last axis of indices."""
    if validate_indices:
        _validate(indices, x.shape[batch_dims : batch_dims + indices.shape[-1]])
    if batch_dims == 0:
        return x[tuple(np.moveaxis(indices, -1, 0))]
    lead = x.shape[:batch_dims]
    parts = zip(_merge(x, batch_dims), _merge(indices, batch_dims), strict=True)
    taken = np.stack([a[tuple(np.moveaxis(i, -1, 0))] for a, i in parts])
    return taken.reshape(lead + taken.shape[1:])


def gather_along_axis(x: Array, indices: Array, *, axis: int = 0, validate_indices: bool = False) -> Array:
    """x[..., indices[...], ...]: one value of x for each index, along an axis."""
    if validate_indices:
        _validate(indices, x.shape[axis])
    return np.take_along_axis(x, _as_shape(indices, x, axis), axis)


def _validate(indices: Array, length: Array | int) -> None:
    """IndexError where an index is negative or not below the length, or the length of its own along the last axis."""
    if np.any(indices < 0) or np.any(indices >= np.asarray(length)):
        raise IndexError(f"indices from {np.min(indices)} to {np.max(indices)} for a length of {length}")


def _merge(x: Array, count: int) -> Array:
    """X with its first axes made one."""
    return x.reshape((-1, *x.shape[count:]))


def _as_shape(indices: Array, x: Array, axis: int) -> Array:
    """Indices broadcast to x but along the axis."""
    shape = list(x.shape)
    shape[axis] = indices.shape[axis]
    return np.broadcast_to(indices, shape)


def _divide_at(data: Array, index: Any, updates: Array) -> None:
    """Divides data at places by updates; integers lose their fraction, so that the order of updates does not matter."""
    if data.dtype.kind == "f":
        np.divide.at(data, index, updates)
        return
    divisor = np.ones_like(data)
    np.multiply.at(divisor, index, updates)
    data[...] = real_div(data, divisor)


# How a scatter joins an update with what is there.
SCATTERS: dict[str, Callable[..., None]] = {
    "add": np.add.at,
    "sub": np.subtract.at,
    "mul": np.multiply.at,
    "div": _divide_at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _scatter(data: Array, index: tuple[Array | slice, ...], updates: Array, mode: str) -> Array:
    """A copy of data, joined with updates at an index."""
    result = data.copy()
    if mode == "update":
        result[index] = updates
    else:
        SCATTERS[mode](result, index, updates)
    return result


def scatter(
    data: Array, indices: Array, updates: Array, *, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Array:
    """Data with slices along an axis joined with updates."""
    if validate_indices:
        _validate(indices, data.shape[axis])
    return _scatter(data, (slice(None),) * (axis % data.ndim) + (np.asarray(indices),), updates, mode)


def scatter_nd(
    data: Array, indices: Array, updates: Array, *, mode: str = "add", validate_indices: bool = False
) -> Array:
    """Data joined with updates at index vectors, which lie along the last axis of indices."""
    if validate_indices:
        _validate(indices, data.shape[: indices.shape[-1]])
    return _scatter(data, tuple(np.moveaxis(indices, -1, 0)), updates, mode)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, *, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Array:
    """Data joined with updates, one index for each update, along an axis."""
    if validate_indices:
        _validate(indices, data.shape[axis])
    where = list(np.indices(indices.shape, sparse=True))
    where[axis % data.ndim] = indices
    return _scatter(data, tuple(where), updates, mode)


OPS: dict[str, Op] = {
    "gather": pick(gather),
    "gather_along_axis": pick(gather_along_axis),
    "gather_nd": pick(gather_nd),
    "scatter": Op(scatter),
    "scatter_along_axis": Op(scatter_along_axis),
    "scatter_nd": Op(scatter_nd),
}
