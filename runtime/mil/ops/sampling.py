"""Images sampled at coordinates that are computed: resample, affine, crop_resize."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.ops.base import Array, Op
from satchel.runtime.mil.ops.resize import grid


def _pixels(coordinates: Array, length: int, mode: str, align_corners: bool) -> Array:
    """Coordinates along an axis -> places between its elements, 0 the middle of the first one."""
    if mode == "unnormalized":
        return coordinates
    if mode == "normalized_minus_one_to_one":
        coordinates = (coordinates + np.float32(1)) / np.float32(2)
    elif mode != "normalized_zero_to_one":
        raise ValueError(f"coordinates_mode {mode!r}")
    if align_corners:
        return coordinates * np.float32(length - 1)
    return coordinates * np.float32(length) - np.float32(0.5)


def _fold(places: Array, low: float, span: int) -> Array:
    """Places reflected at `low` and `low + span` until they lie between."""
    if span == 0:
        return np.zeros_like(places)
    away = np.abs(places - np.float32(low))
    extra, turns = np.fmod(away, np.float32(span)), np.floor(away / np.float32(span))
    return np.where(turns % 2 == 0, extra, span - extra) + np.float32(low)


def _padded(places: Array, length: int, padding: str) -> Array:
    """Places moved into the axis as a padding mode says; "constant" leaves them."""
    if padding == "constant":
        return places
    if padding == "reflection":  # at the middle of the first and last element
        places = _fold(places, 0, length - 1)
    elif padding == "symmetric":  # at their outer edges
        places = _fold(places, -0.5, length)
    elif padding != "border":
        raise ValueError(f"padding_mode {padding!r}")
    return np.clip(places, np.float32(0), np.float32(length - 1))


def _values(x: Array, rows: Array, columns: Array, fill: float) -> Array:
    """x [b, c, h, w] at integer places [b, *out], `fill` where they lie outside: [b, c, *out]."""
    height, width = x.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    flat = np.where(inside, rows * width + columns, 0).astype(np.intp)
    merged = x.reshape(x.shape[0], x.shape[1], -1)
    taken = np.take_along_axis(merged, flat.reshape(len(x), 1, -1), axis=2).reshape(*x.shape[:2], *rows.shape[1:])
    return taken if inside.all() else np.where(inside[:, None], taken, np.float32(fill))


def _bilinear(x: Array, rows: Array, columns: Array, fill: float) -> Array:
    """x at places between elements, the four around each weighted by distance."""
    top, left = np.floor(rows), np.floor(columns)
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    up, back = np.float32(1) - down, np.float32(1) - right
    return (
        _values(x, top, left, fill) * (up * back)
        + _values(x, top, left + 1, fill) * (up * right)
        + _values(x, top + 1, left, fill) * (down * back)
        + _values(x, top + 1, left + 1, fill) * (down * right)
    )


def resample(
    x: Array,
    coordinates: Array,
    *,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    """x [b, c, h, w] at coordinates [b, h2, w2, 2], which are (x, y): [b, c, h2, w2]. Halves go to the even element."""
    points = np.asarray(coordinates, np.float32)
    height, width = x.shape[-2:]
    columns = _padded(_pixels(points[..., 0], width, coordinates_mode, align_corners), width, padding_mode)
    rows = _padded(_pixels(points[..., 1], height, coordinates_mode, align_corners), height, padding_mode)
    if sampling_mode == "nearest":
        return _values(x, np.rint(rows), np.rint(columns), padding_value)
    return _bilinear(x, rows, columns, padding_value)


def _centres(count: int, align_corners: bool) -> Array:
    """Where the elements of an axis lie if it goes from -1 to 1; one alone lies in the middle."""
    if align_corners and count > 1:
        return np.linspace(-1, 1, count, dtype=np.float32)
    return ((2 * np.arange(count) + 1) / count - 1).astype(np.float32)


def affine(
    x: Array,
    transform_matrix: Array,
    *,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    """x [b, c, h, w] at (x, y) -> (a0 x + a1 y + a2, b0 x + b1 y + b2), a matrix [a0, a1, a2, b0, b1, b2] each or one
    for all. The coordinates of both images go from -1 to 1, the only mode of the format."""
    if coordinates_mode != "normalized_minus_one_to_one":
        raise ValueError(f"coordinates_mode {coordinates_mode!r}")
    rows, columns = np.meshgrid(*(_centres(n, align_corners) for n in (output_height, output_width)), indexing="ij")
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    matrices = transform_matrix.reshape(-1, 1, 2, 3)
    points = np.einsum("hwk,bojk->bhwj", places, matrices)
    return resample(
        x,
        np.broadcast_to(points, (x.shape[0], *points.shape[1:])),
        sampling_mode=sampling_mode,
        padding_mode=padding_mode,
        padding_value=padding_value,
        coordinates_mode=coordinates_mode,
        align_corners=align_corners,
    )


def _spans(boxes: Array, mode: str) -> tuple[Array, Array, Array, Array]:
    """(top, bottom, left, right) of boxes [n, 4], each float64 [n]."""
    a, b, c, d = np.moveaxis(boxes.astype(np.float64), -1, 0)
    corners, _, order = mode.partition("_")
    if corners == "CENTER":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    elif corners != "CORNERS":
        raise ValueError(f"box_coordinate_mode {mode!r}")
    return (a, c, b, d) if order.endswith("HEIGHT_FIRST") else (b, d, a, c)


def _box_grid(start: Array, end: Array, count: int, mode: str) -> Array:
    """Points from the start to the end of each box, backwards where it ends before it starts: [n, count]."""
    return start[:, None] + np.sign(end - start)[:, None] * grid(np.abs(end - start), count, mode)


def crop_resize(
    x: Array,
    roi: Array | None = None,
    boxes: Array | None = None,
    box_indices: Array | None = None,
    *,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Array:
    """Boxes cut out of images x [b, c, h, w] and resized bilinearly; what lies outside the image is `pad_value`.

    Args:
        x: the images.
        roi: before iOS 17 [n, 1, 4, 1, 1], boxes to cut from every image: [n, b, c, h2, w2]; or [n, 1, 5, 1, 1], an
            image's index before each box: [n, 1, c, h2, w2].
        boxes, box_indices: since iOS 17 [n, 4] and [n] (by default 0, 1, ...): [n, c, h2, w2].
        target_height, target_width: h2, w2.
        normalized_coordinates: whether boxes are given in parts of h - 1 and w - 1.
        spatial_scale: factor on the boxes' coordinates.
        box_coordinate_mode: (top, left, bottom, right), or centre and size; or these with width first.
        sampling_mode: see resize.grid; a box takes the place of the axis.
        pad_value: see above.
    """
    given = boxes if roi is None else roi.reshape(len(roi), -1)
    if given is None:
        raise ValueError("neither roi nor boxes")
    top, bottom, left, right = _spans(given[:, -4:] * np.float32(spatial_scale), box_coordinate_mode)
    height, width = (x.shape[-2] - 1, x.shape[-1] - 1) if normalized_coordinates else (1, 1)
    rows = _box_grid(top * height, bottom * height, target_height, sampling_mode)
    columns = _box_grid(left * width, right * width, target_width, sampling_mode)
    if roi is not None and given.shape[1] == 4:
        return np.stack([_cut(x, r, c, pad_value) for r, c in zip(rows, columns, strict=True)])
    which = given[:, 0] if roi is not None else np.arange(len(given)) if box_indices is None else box_indices
    images = np.asarray(which).astype(np.intp)
    if images.size and (images.min() < 0 or images.max() >= len(x)):
        raise ValueError(f"box of image {images.max()} of {len(x)}")
    crops = [_cut(x[i], r, c, pad_value) for i, r, c in zip(images, rows, columns, strict=True)]
    found = np.stack(crops) if crops else np.zeros((0, x.shape[1], target_height, target_width), x.dtype)
    return found if roi is None else found[:, None]


def _cut(x: Array, rows: Array, columns: Array, fill: float) -> Array:
    """x [..., h, w] at rows [h2] and columns [w2] between its elements, `fill` outside."""
    last = x.shape[-2] - 1, x.shape[-1] - 1
    inside = [(p >= 0) & (p <= n) for p, n in zip((rows, columns), last, strict=True)]
    points = [np.clip(p, 0, n) for p, n in zip((rows, columns), last, strict=True)]
    low = [np.floor(p).astype(np.intp) for p in points]
    high = [np.minimum(p + 1, n) for p, n in zip(low, last, strict=True)]
    down, right = ((p - i).astype(np.float32) for p, i in zip(points, low, strict=True))
    above, below = x[..., low[0], :], x[..., high[0], :]
    lines = above + (below - above) * down[:, None]
    y = lines[..., low[1]] + (lines[..., high[1]] - lines[..., low[1]]) * right
    return np.where(inside[0][:, None] & inside[1], y, np.float32(fill))


OPS: dict[str, Op] = {
    "affine": Op(affine),
    "crop_resize": Op(crop_resize),
    "resample": Op(resample),
}
