"""Compressed constants -> their values. Run once, when a program is made ready (see constants.py)."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.dtypes import BY_NAME, unpack
from satchel.runtime.mil.ops.base import Array, Ints, Op, pick

CHUNK = 1 << 16  # elements looked up at a time: numpy's lookup turns each index into 8 bytes, which fit the cache so
TINY = 256  # elements of a block that is not worth a lookup of its own


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
    table = np.ascontiguousarray(lut.reshape(-1, vector).T)  # one row for each place in a vector
    first = np.arange(table.shape[1] // entries).reshape(groups) * entries
    if vector == 1:
        return _look_up_groups(table[0], indices, first)
    axis = (vector_axis or 0) % indices.ndim
    out = np.empty((*indices.shape[: axis + 1], vector, *indices.shape[axis + 1 :]), lut.dtype)
    for place, row in enumerate(table):
        out[(*(slice(None),) * (axis + 1), place)] = _look_up_groups(row, indices, first)
    return out.reshape([n * vector if i == axis else n for i, n in enumerate(indices.shape)])


def _packed_indices(indices: Array, entries: int, count: int) -> Array:
    """Packed indices of log2(entries) bits, unpacked."""
    return unpack(indices, BY_NAME[f"uint{int(entries).bit_length() - 1}"], count)


def _look_up_groups(table: Array, indices: Array, first: Array) -> Array:
    """table[first[group] + index], block by block, or all at once where the blocks are tiny."""
    if first.size == 1:
        return _look_up(table, indices.reshape(-1)).reshape(indices.shape)
    if any(n % g for n, g in zip(indices.shape, first.shape, strict=True)):
        raise ValueError(f"indices of shape {indices.shape} in blocks {first.shape}")
    sizes = [n // g for n, g in zip(indices.shape, first.shape, strict=True)]
    if np.prod(sizes) < TINY:
        for axis, size in enumerate(sizes):
            first = np.repeat(first, size, axis=axis)
        return table[indices + first]
    out = np.empty(indices.shape, table.dtype)
    for group, start in np.ndenumerate(first):
        block = tuple(slice(g * n, (g + 1) * n) for g, n in zip(group, sizes, strict=True))
        codes, target = np.ascontiguousarray(indices[block]).reshape(-1), out[block]
        if target.flags.c_contiguous:
            _look_up(table[start:], codes, target.reshape(-1))
        else:
            target[...] = _look_up(table[start:], codes).reshape(sizes)
    return out


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
    places = np.flatnonzero(present)
    if values.shape != places.shape:
        raise ValueError(f"values of shape {values.shape} for a mask of {places.size} bits that are set")
    dense = np.zeros(present.size, values.dtype)
    dense[places] = values
    return dense.reshape(present.shape)


def _gather(dense: Array, present: Array) -> Array:
    """The values where `present` is true, one after the other."""
    return np.take(dense.reshape(-1), np.flatnonzero(present))


def constexpr_lut_to_sparse(
    indices_mask: Array, indices_nonzero_data: Array, lut: Array, *, vector_axis: int | None = None
) -> tuple[Array, Array]:
    """Values looked up by the indices that a mask marks: (where the values are, the values one after the other).

    The table is that of constexpr_lut_to_dense; with vectors the mask is repeated along vector_axis.
    """
    dense = constexpr_lut_to_dense(_scatter(indices_nonzero_data, indices_mask != 0), lut, vector_axis=vector_axis)
    vector = lut.shape[-1]
    mask = indices_mask if vector == 1 else np.repeat(indices_mask, vector, axis=vector_axis or 0)
    return mask, _gather(dense, mask != 0)


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Array, nonzero_data: Array, scale: Array, offset: Array | None = None
) -> tuple[Array, Array]:
    """scale * (data - offset) for the values that a mask marks: (the mask, the values one after the other)."""
    present = data_mask != 0
    dense = constexpr_blockwise_shift_scale(_scatter(nonzero_data, present), scale, offset)
    return data_mask, _gather(dense, present)


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
