"""Ops that move values between the axes of an image, and others that put them in a new order."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from satchel.runtime.mil.ops.base import Array, Bools, Ints, Op, move, pick


def depth_to_space(x: Array, *, block_size: int) -> Array:
    """[n, b b c, h, w] -> [n, c, h b, w b]; the place in the block is the slower part of the channel."""
    n, depth, h, w = x.shape
    b, c = block_size, depth // block_size**2
    return x.reshape(n, b, b, c, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c, h * b, w * b)


def space_to_depth(x: Array, *, block_size: int) -> Array:
    """[n, c, h b, w b] -> [n, b b c, h, w], undoing depth_to_space."""
    n, c, height, width = x.shape
    b, h, w = block_size, height // block_size, width // block_size
    return x.reshape(n, c, h, b, w, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, b * b * c, h, w)


def pixel_shuffle(x: Array, *, upscale_factor: int) -> Array:
    """[n, c f f, h, w] -> [n, c, h f, w f]; the place in the block is the faster part of the channel."""
    n, depth, h, w = x.shape
    f, c = upscale_factor, depth // upscale_factor**2
    return x.reshape(n, c, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c, h * f, w * f)


def pixel_unshuffle(x: Array, *, downscale_factor: int) -> Array:
    """[n, c, h f, w f] -> [n, c f f, h, w], undoing pixel_shuffle."""
    n, c, height, width = x.shape
    f, h, w = downscale_factor, height // downscale_factor, width // downscale_factor
    return x.reshape(n, c, h, f, w, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f * f, h, w)


def space_to_batch(x: Array, *, block_shape: Ints, paddings: Ints) -> Array:
    """[n, c, h, w], padded by (top, bottom, left, right), -> [bh bw n, c, h / bh, w / bw]."""
    (bh, bw), (top, bottom, left, right) = block_shape, paddings
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // bh, bh, w // bw, bw).transpose(3, 5, 0, 1, 2, 4)
    return blocks.reshape(bh * bw * n, c, h // bh, w // bw)


def batch_to_space(x: Array, *, block_shape: Ints, crops: Ints) -> Array:
    """[bh bw n, c, h, w] -> [n, c, h bh, w bw], cropped by (top, bottom, left, right): space_to_batch undone."""
    (bh, bw), (top, bottom, left, right) = block_shape, crops
    batch, c, h, w = x.shape
    n = batch // (bh * bw)
    whole = x.reshape(bh, bw, n, c, h, w).transpose(2, 3, 4, 0, 5, 1).reshape(n, c, h * bh, w * bw)
    return whole[:, :, top : h * bh - bottom, left : w * bw - right]


def sliding_windows(x: Array, *, axis: int, size: int, stride: int = 1) -> Array:
    """Windows of an axis: where it was, their number, and after it their size."""
    axis = axis % x.ndim
    windows = np.moveaxis(sliding_window_view(x, size, axis=axis), -1, axis + 1)
    # Windows overlap in memory, so that nobody may write to the view.
    return windows[(slice(None),) * axis + (slice(None, None, stride),)].copy()


def reverse_sequence(x: Array, lengths: Array, *, seq_axis: int = 0, batch_axis: int = 0) -> Array:
    """X with the first lengths[i] elements along seq_axis backwards, i being the place along batch_axis."""
    seq_axis, batch_axis = seq_axis % x.ndim, batch_axis % x.ndim
    size = x.shape[seq_axis]
    if seq_axis == batch_axis or lengths.min(initial=0) < 0 or lengths.max(initial=0) > size:
        raise ValueError(f"lengths {lengths.tolist()} along axis {seq_axis}, batch axis {batch_axis}")
    places, last = np.arange(size), lengths.astype(np.int64).reshape(-1, 1)
    order = np.where(places < last, last - 1 - places, places)  # [batch, sequence]
    order = order if batch_axis < seq_axis else order.T
    others = tuple(i for i in range(x.ndim) if i not in (seq_axis, batch_axis))
    return np.take_along_axis(x, np.expand_dims(order, others), seq_axis)


def reshape_like(x: Array, *ref_tensors: Array, begins: Ints, ends: Ints, end_masks: Bools) -> Array:
    """X with the dimensions begins[i] to ends[i] of each reference, one after the other; masked ends are open."""
    parts = zip(ref_tensors, begins, ends, end_masks, strict=True)
    return x.reshape([d for ref, b, e, open_ in parts for d in (ref.shape[b:] if open_ else ref.shape[b:e])])


OPS: dict[str, Op] = {
    "batch_to_space": move(batch_to_space),
    "depth_to_space": move(depth_to_space),
    "pixel_shuffle": move(pixel_shuffle),
    "pixel_unshuffle": move(pixel_unshuffle),
    "reshape_like": move(reshape_like),
    "reverse_sequence": pick(reverse_sequence),
    "sliding_windows": pick(sliding_windows),
    "space_to_batch": move(space_to_batch),
    "space_to_depth": move(space_to_depth),
}
