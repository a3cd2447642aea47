"""Compressed constants -> their values. Run once, when a program is made ready (see constants.py)."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.dtypes import BY_NAME, unpack
from satchel.runtime.mil.ops.base import Array, Ints, Op, pick

CHUNK = 1 << 16  # elements looked up at a time: numpy's lookup turns each index into 8 bytes, which fit the cache so


def constexpr_lut_to_dense(
    indices: Array, lut: Array, *, shape: Ints | None = None, vector_axis: int | None = None
) -> Array:
    """Values looked up by index.

    Args:
        indices: uint8, of the result's shape (along vector_axis divided by the vector's length); before iOS 18 flat and
            packed, log2(entries) bits each, low bits first.
        lut: before iOS 18 [entries]; since [*groups, entries, vector], where each axis of `groups` divides that of
            the indices into that many blocks with a table each.
        shape: of the result, before iOS 18.
        vector_axis: the axis along which a vector is laid out; needed where it is longer than 1.
    """
    if shape is not None:
        return _look_up(lut, _packed_indices(indices, lut.size, int(np.prod(shape)))).reshape(shape)
    groups, entries, vector = lut.shape[:-2], lut.shape[-2], lut.shape[-1]
    if indices.size and indices.max() >= entries:
        raise ValueError(f"index {indices.max()} into a table of {entries} entries")
    table = lut.reshape(-1, vector)
    first = np.arange(len(table) // entries).reshape(groups) * entries
    if vector == 1:
        return _look_up_groups(table[:, 0], indices, first)
    axis = (vector_axis or 0) % indices.ndim
    values = table[indices + _spread(first, indices.shape)]  # [*indices, vector]
    moved = np.moveaxis(values, -1, axis + 1)
    return moved.reshape([n * vector if i == axis else n for i, n in enumerate(indices.shape)])


def _packed_indices(indices: Array, entries: int, count: int) -> Array:
    """Packed indices of log2(entries) bits, unpacked."""
    return unpack(indices, BY_NAME[f"uint{int(entries).bit_length() - 1}"], count)


def _spread(per_group: Array, shape: Ints) -> Array:
    """A value for each group -> the same for each element of its block."""
    for axis, size in enumerate(shape):
        per_group = np.repeat(per_group, size // per_group.shape[axis], axis=axis)
    return per_group


def _look_up_groups(table: Array, indices: Array, first: Array) -> Array:
    """table[first[group] + index], group by group where groups lie along the first axis only."""
    if first.size == 1:
        return _look_up(table, indices.reshape(-1)).reshape(indices.shape)
    if first.size != first.shape[0]:
        return table[indices + _spread(first, indices.shape)]
    blocks = indices.reshape(first.size, -1)
    out = np.empty(blocks.shape, table.dtype)
    for block, start, row in zip(blocks, first.reshape(-1), out, strict=True):
        _look_up(table[start:], block, row)
    return out.reshape(indices.shape)


def _look_up(table: Array, indices: Array, out: Array | None = None) -> Array:
    """table[indices] for flat indices, a chunk at a time."""
    out = np.empty(indices.shape, table.dtype) if out is None else out
    for start in range(0, indices.size, CHUNK):
        part = slice(start, start + CHUNK)
        np.take(table, indices[part], out=out[part], mode="clip")
    return out


def constexpr_blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale * (data - offset), each block of data with its own; blocks are data.shape / scale.shape."""
    blocks = [n for s, d in zip(scale.shape, data.shape, strict=True) for n in (s, d // s)]
    each = [n for s in scale.shape for n in (s, 1)]
    values = data.astype(np.float32).reshape(blocks)
    if offset is not None:
        values -= offset.astype(np.float32).reshape(each)
    values *= scale.reshape(each)
    return values.reshape(data.shape)


def constexpr_affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, *, axis: int) -> Array:
    """scale * (data - zero point), one of each for the tensor or for each place along an axis."""
    shape = [-1 if i == axis % quantized_data.ndim else 1 for i in range(quantized_data.ndim)]
    values = quantized_data.astype(np.float32)
    values -= np.asarray(zero_point, np.float32).reshape(shape if np.ndim(zero_point) else ())
    values *= np.asarray(scale, np.float32).reshape(shape if np.ndim(scale) else ())
    return values


def constexpr_sparse_to_dense(nonzero_data: Array, mask: Array, *, shape: Ints | None = None) -> Array:
    """Zeros but where the mask has a bit; before iOS 18 the mask is packed, low bits first, and the shape given."""
    if shape is not None:
        mask = np.unpackbits(mask, bitorder="little")[: int(np.prod(shape))].reshape(shape)
    return _scatter(nonzero_data, mask != 0)


def _scatter(values: Array, present: Array) -> Array:
    """Zeros with the values, one after the other, where `present` is true."""
    count = np.count_nonzero(present)
    if values.shape != (count,):
        raise ValueError(f"values of shape {values.shape} for a mask of {count} bits that are set")
    dense = np.zeros(present.shape, values.dtype)
    dense[present] = values
    return dense


def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, *, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """Values looked up by the indices that a mask marks: (where the values are, the values one after the other).

    The table is that of constexpr_lut_to_dense; with vectors the mask is repeated along vector_axis.
    """
    dense = constexpr_lut_to_dense(_scatter(indices_nonzero_data, indices_mask != 0), lut, vector_axis=vector_axis)
    vector = lut.shape[-1]
    mask = indices_mask if vector == 1 else np.repeat(indices_mask, vector, axis=vector_axis or 0)
    return mask, dense[mask != 0]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """scale * (data - offset) for the values that a mask marks: (the mask, the values one after the other)."""
    present = data_mask != 0
    dense = constexpr_blockwise_shift_scale(_scatter(nonzero_data, present), scale, offset)
    return data_mask, dense[present]


def constexpr_cast(source_val: Array, *, output_dtype: str) -> Array:
    """fp16 -> fp32; the values are fp32 here already."""
    return source_val


OPS: dict[str, Op] = {
    "constexpr_affine_dequantize": Op(constexpr_affine_dequantize),
    "constexpr_blockwise_shift_scale": Op(constexpr_blockwise_shift_scale),
    "constexpr_cast": pick(constexpr_cast),
    "constexpr_lut_to_dense": pick(constexpr_lut_to_dense),
    "constexpr_lut_to_sparse": pick(constexpr_lut_to_sparse),
    "constexpr_sparse_blockwise_shift_scale": Op(constexpr_sparse_blockwise_shift_scale),
    "constexpr_sparse_to_dense": pick(constexpr_sparse_to_dense),
}
