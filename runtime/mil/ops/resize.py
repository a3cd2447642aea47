"""Images (and other arrays) of another size: the values of x between its elements, on a regular grid."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.ops.base import Array, Ints, Op, move

GRIDS = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def grid(extent: Array | int, count: int, mode: str) -> Array:
    """The points at which an axis is sampled.

    Args:
        extent: the last place of the axis, its length - 1; or an array of such.
        count: how many points.
        mode: one of GRIDS, as the notes of coremltools' resize_bilinear define them.

    Returns:
        float64 [..., count], each from 0 to extent.
    """
    last = np.asarray(extent, np.float64)[..., None]
    i = np.arange(count, dtype=np.float64)
    if mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and count > 1):
        points = i * last / max(1, count - 1)
    elif mode == "ALIGN_CORNERS":
        points = (i + 0.5) * last
    elif mode == "DEFAULT":
        points = i * (last + 1) / count
    elif mode == "OFFSET_CORNERS":
        points = (i + 0.5) * np.maximum(1, last) / count
    elif mode == "UNALIGN_CORNERS":
        points = (i + 0.5) * (last + 1) / count - 0.5
    else:
        raise ValueError(f"sampling mode {mode!r} is none of {', '.join(GRIDS)}")
    return np.clip(points, 0, last)


def _take(x: Array, places: Array, axis: int) -> Array:
    """x at some places of an axis; x itself where that is all of them in order."""
    everything = len(places) == x.shape[axis] and np.array_equal(places, np.arange(len(places)))
    return x if everything else np.take(x, places, axis)


def _linear(x: Array, points: Array, axis: int) -> Array:
    """Values between the elements of an axis, weighted by distance."""
    low = np.floor(points).astype(np.intp)
    weight = (points - low).astype(np.float32)
    if not weight.any():
        return _take(x, low, axis)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = weight.reshape((-1,) + (1,) * (x.ndim - 1 - axis % x.ndim))
    y, upper = np.take(x, low, axis).astype(np.float32, copy=False), np.take(x, high, axis) * weight
    y *= np.float32(1) - weight
    y += upper
    return y


def _nearest(length: int, count: int, mode: str) -> Array:
    """The place of an axis of `length` whose value each of `count` elements takes."""
    if mode in ("DEFAULT", "UNALIGN_CORNERS"):  # the element in whose span the middle of the new one lies
        return (2 * np.arange(count) + 1) * length // (2 * count)
    return np.floor(grid(length - 1, count, mode) + 0.5).astype(np.intp)


def resize(
    x: Array,
    *,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Array:
    """x with the last `resized_dims` axes of the lengths that end `shape`; 0 leaves an axis as it is.

    The format defines the sampling modes for LINEAR. For NEAREST_NEIGHBOR with DEFAULT, coremltools' tests against
    Core ML and TensorFlow expect half-pixel centres; the modes that align corners take the element nearest to their
    grid's point, the upper one of two. Integers are interpolated as floats and cut towards zero, as by `cast`.
    """
    if not 0 <= resized_dims <= min(len(shape), x.ndim):
        raise ValueError(f"resized_dims {resized_dims} with a shape of {len(shape)} numbers for rank {x.ndim}")
    y = x
    for back in range(1, resized_dims + 1):  # single elements are moved first, then whole rows
        count, axis = shape[-back] or x.shape[-back], x.ndim - back
        if interpolation_mode == "NEAREST_NEIGHBOR":
            y = _take(y, _nearest(x.shape[axis], count, sampling_mode), axis)
        else:
            y = _linear(y, grid(x.shape[axis] - 1, count, sampling_mode), axis)
    return y.astype(x.dtype, copy=False)


def resize_bilinear(
    x: Array, *, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    """x with its last two axes of another size, values weighted by distance."""
    return resize(x, shape=(target_size_height, target_size_width), resized_dims=2, sampling_mode=sampling_mode)


def resize_nearest_neighbor(x: Array, *, target_size_height: int, target_size_width: int) -> Array:
    """x with its last two axes of another size, each element the one below its centre.

    Half-pixel centres: coremltools writes TensorFlow's ResizeNearestNeighbor with half_pixel_centers as this op.
    """
    shape = (target_size_height, target_size_width)
    return resize(x, shape=shape, resized_dims=2, interpolation_mode="NEAREST_NEIGHBOR")


def scaled(length: int, factor: float) -> int:
    """floor(length * factor), the product in fp32 as coremltools' type inference has it."""
    return int(np.floor(np.float32(length) * np.float32(factor)))


def upsample_nearest_neighbor(x: Array, *, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Array:
    """x with its last two axes longer by a factor, element i the one at floor(i * old / new)."""
    y = x
    for axis, factor in ((x.ndim - 2, scale_factor_height), (x.ndim - 1, scale_factor_width)):
        count = scaled(x.shape[axis], factor)
        y = _take(y, np.arange(count) * x.shape[axis] // max(1, count), axis)
    return y


def upsample_bilinear(
    x: Array,
    *,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    """x with its last two axes longer by a factor, values weighted by distance; the factor is made anew of the sizes.

    half_pixel_centers is the contrary of align_corners if absent; both together are not allowed.
    """
    if align_corners and half_pixel_centers:
        raise ValueError("align_corners and half_pixel_centers exclude each other")
    centres = not align_corners if half_pixel_centers is None else half_pixel_centers
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centres else "DEFAULT"
    shape = (scaled(x.shape[-2], scale_factor_height), scaled(x.shape[-1], scale_factor_width))
    return resize(x, shape=shape, resized_dims=2, sampling_mode=mode)


def crop(x: Array, *, crop_height: Ints, crop_width: Ints) -> Array:
    """x without some rows at top and bottom, and some columns at left and right."""
    (top, bottom), (left, right) = crop_height, crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


OPS: dict[str, Op] = {
    "crop": move(crop),
    "resize": Op(resize, view=True),
    "resize_bilinear": Op(resize_bilinear, view=True),
    "resize_nearest_neighbor": Op(resize_nearest_neighbor, exact=True, view=True),
    "upsample_bilinear": Op(upsample_bilinear, view=True),
    "upsample_nearest_neighbor": Op(upsample_nearest_neighbor, exact=True, view=True),
}
