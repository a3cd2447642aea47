"""Ops that move values: shapes, slices, joins, tiles, padding, and the making of simple tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from satchel.runtime.mil.ops.base import Array, Bools, Ints, Op, move, pick

Index = tuple[slice | int | None, ...]


def identity(x: Array) -> Array:
    """X."""
    return x


def shape(x: Array) -> Array:
    """The dimensions of x, int32."""
    return np.array(np.shape(x), dtype=np.int32)


def reshape(x: Array, *, shape: Ints, opset: int = 18) -> Array:
    """X with another shape; 0 takes the dimension of x counted from the right, -1 is what remains.

    Before iOS 17 there may be a 0 only where the rank stays the same.
    """
    if 0 in shape and opset < 17 and len(shape) != x.ndim:
        raise ValueError(f"shape {list(shape)} with a 0 for a tensor of rank {x.ndim}, before iOS 17")
    if 0 in shape and x.size:
        have = x.shape[::-1]
        want = [(have[i] if i < len(have) else 1) if d == 0 else d for i, d in enumerate(shape[::-1])]
        shape = tuple(want[::-1])
    return x.reshape(shape)


def transpose(x: Array, *, perm: Ints) -> Array:
    """X with its axes in the order `perm`."""
    return x.transpose(perm)


@lru_cache(maxsize=4096)
def _new_axes(rank: int, axes: Ints) -> Index:
    """The index that puts an axis of length 1 at each of these places of the result."""
    whole = rank + len(axes)
    places = {a % whole for a in axes if -whole <= a < whole}
    if len(places) != len(axes):
        raise ValueError(f"axes {list(axes)} are not different places of rank {whole}")
    return tuple(np.newaxis if i in places else slice(None) for i in range(rank + len(axes)))


def expand_dims(x: Array, *, axes: Ints) -> Array:
    """X with axes of length 1 at these places of the result."""
    return np.asarray(x)[_new_axes(np.ndim(x), axes)]


def squeeze(x: Array, *, axes: Ints | None = None) -> Array:
    """X without these axes of length 1, all such by default."""
    return np.squeeze(x, axes)


def flatten2d(x: Array, *, axis: int = 1) -> Array:
    """X as a matrix: the axes before `axis`, and the rest."""
    axis = axis % x.ndim if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(rows, -1 if x.size else int(np.prod(x.shape[axis:], dtype=np.int64)))


@lru_cache(maxsize=65536)
def slices(
    begin: Ints, end: Ints, stride: Ints | None, begin_mask: Bools | None, end_mask: Bools | None, squeeze: Bools | None
) -> Index:
    """The numpy index that a slice op's arguments mean. A masked begin or end is open; a squeezed axis takes one."""
    index: list[slice | int] = []
    for i, (b, e) in enumerate(zip(begin, end, strict=True)):
        first = 0 if begin_mask and begin_mask[i] else b
        if squeeze and squeeze[i]:
            index.append(first)
            continue
        step = stride[i] if stride else 1
        # With a negative stride an open begin is the last element, which None says and 0 does not.
        start = None if begin_mask and begin_mask[i] else b
        index.append(slice(start, None if end_mask and end_mask[i] else e, step))
    return tuple(index)


def slice_by_index(
    x: Array,
    *,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """x[begin:end:stride] on every axis."""
    return x[slices(begin, end, stride, begin_mask, end_mask, squeeze_mask)]


def slice_by_size(x: Array, *, begin: Ints, size: Ints) -> Array:
    """x[begin:begin + size] on every axis; size -1 is all that remains."""
    starts = [b + n if b < 0 else b for b, n in zip(begin, x.shape, strict=True)]
    ends = [n if s == -1 else b + s for b, s, n in zip(starts, size, x.shape, strict=True)]
    return x[tuple(slice(b, e) for b, e in zip(starts, ends, strict=True))]


def slice_update_in_place(
    x: Array,
    update: Array,
    *,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """Writes `update` into a slice of x itself; for the interpreter, where nobody needs the old x any more."""
    index = slices(begin, end, stride, begin_mask, end_mask, squeeze_mask)
    target = x[index]
    if target.shape != update.shape and target.size != update.size:
        raise ValueError(f"update of shape {update.shape} for a slice of shape {target.shape}")
    x[index] = update if target.shape == update.shape else update.reshape(target.shape)
    return x


def slice_update(
    x: Array,
    update: Array,
    *,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Array:
    """A copy of x with `update` in a slice of it."""
    return slice_update_in_place(
        x.copy(),
        update,
        begin=begin,
        end=end,
        stride=stride,
        begin_mask=begin_mask,
        end_mask=end_mask,
        squeeze_mask=squeeze_mask,
    )


@lru_cache(maxsize=4096)
def _cuts(rank: int, axis: int, length: int, count: int, sizes: Ints | None) -> tuple[Index, ...]:
    """The index of each part of an axis that is cut."""
    if sizes is None and length % count:
        raise ValueError(f"an axis of {length} does not divide into {count} parts")
    sizes = sizes or (length // count,) * count
    if sum(sizes) != length:
        raise ValueError(f"parts of {list(sizes)} do not make up an axis of {length}")
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    before = (slice(None),) * (axis % rank)
    return tuple((*before, slice(end - size, end)) for size, end in zip(sizes, ends, strict=True))


def split(x: Array, *, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> tuple[Array, ...]:
    """X cut along an axis into `num_splits` equal parts, or parts of the given sizes."""
    return tuple([x[cut] for cut in _cuts(x.ndim, axis, x.shape[axis], num_splits or 1, split_sizes)])


def concat(*values: Array, axis: int, interleave: bool = False) -> Array:
    """Arrays joined along an axis; interleaved, they take turns along it. Scalars make a vector."""
    if np.ndim(values[0]) == 0:
        return np.stack(values)
    if not interleave:
        return np.concatenate(values, axis)
    joined = np.stack(values, axis=axis % values[0].ndim + 1)
    return joined.reshape([n * len(values) if i == axis % values[0].ndim else n for i, n in enumerate(values[0].shape)])


def stack(*values: Array, axis: int) -> Array:
    """Arrays joined along a new axis."""
    return np.stack(values, axis)


def tile(x: Array, *, reps: Ints) -> Array:
    """X repeated along every axis."""
    return np.tile(x, reps)


def reverse(x: Array, *, axes: Ints | None = None) -> Array:
    """X backwards along these axes, all by default."""
    return np.flip(x, axes)


def pad(x: Array, *, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Array:
    """X with elements before and after its last axes: `pad` is (before, after) for each of them."""
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    widths = [(0, 0)] * (x.ndim - len(pairs)) + pairs
    if mode == "constant":
        return np.pad(x, widths, constant_values=x.dtype.type(constant_val))
    return np.pad(x, widths, mode="reflect" if mode == "reflect" else "edge")


def range_1d(end: Array, start: Array, step: Array) -> Array:
    """start, start + step, ... before end."""
    dtype: Any = np.asarray(start).dtype
    if dtype.kind in "iu":  # as Python's numbers: numpy's count of them overflows in int32
        return np.arange(int(start), int(end), int(step)).astype(dtype)
    arange: Any = np.arange  # its overloads know no array of one number
    return arange(start, end, step, dtype)


def fill(value: Array | None = None, *, shape: Ints) -> Array:
    """`value` everywhere."""
    value = np.float32(0) if value is None else value
    return np.full(shape, value, dtype=np.asarray(value).dtype)


def fill_like(ref_tensor: Array, value: Array | None = None) -> Array:
    """`value` everywhere, in the shape of another tensor."""
    return fill(value, shape=np.shape(ref_tensor))


def band_part(x: Array, *, lower: int = -1, upper: int = -1) -> Array:
    """X with zeros outside a band around the diagonal of its last two axes; negative keeps the whole side."""
    rows, columns = np.arange(x.shape[-2])[:, None], np.arange(x.shape[-1])
    band = np.ones((x.shape[-2], x.shape[-1]), dtype=bool)
    band &= (lower < 0) | (rows - columns <= lower)
    band &= (upper < 0) | (columns - rows <= upper)
    return np.where(band, x, x.dtype.type(0))


def one_hot(
    indices: Array,
    on_value: Array | None = None,
    off_value: Array | None = None,
    *,
    one_hot_vector_size: int,
    axis: int = -1,
) -> Array:
    """`on_value` where the place along a new axis is the index, `off_value` elsewhere."""
    on = np.int32(1) if on_value is None else on_value
    off = np.int32(0) if off_value is None else off_value
    hit = np.asarray(indices)[..., None] == np.arange(one_hot_vector_size)
    return np.moveaxis(np.where(hit, on, off), -1, axis)


def non_zero(x: Array) -> Array:
    """Indices of the elements that are not zero, int32 [count, rank]."""
    return np.argwhere(x).astype(np.int32)


OPS: dict[str, Op] = {
    "band_part": pick(band_part),
    "concat": pick(concat),
    "expand_dims": move(expand_dims),
    "fill": pick(fill),
    "fill_like": pick(fill_like),
    "flatten2d": move(flatten2d),
    "identity": move(identity),
    "non_zero": pick(non_zero),
    "one_hot": pick(one_hot),
    "pad": pick(pad),
    "range_1d": Op(range_1d),
    "reshape": move(reshape),
    "reverse": move(reverse),
    "shape": pick(shape),
    "slice_by_index": move(slice_by_index),
    "slice_by_size": move(slice_by_size),
    "slice_update": pick(slice_update),
    "split": move(split),
    "squeeze": move(squeeze),
    "stack": pick(stack),
    "tile": pick(tile),
    "transpose": move(transpose),
}
