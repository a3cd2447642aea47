"""A picture -> the pixels that a vision encoder takes, as a bundle's `entry.vision.images` says. Needs Pillow.

Every step is what transformers' image processors over Pillow do, in their order: RGB, resize (of bytes, by Pillow's own
filters), cut into tiles or crop the middle, rescale, normalise. So the pixels are the same, to the last bit but one.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError, MissingPackageError, UsageError

Filter = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
LARGEST_EDGE = 1 << 14
"""Pixels of a picture's longer edge; larger ones are refused rather than decoded."""
LONGEST_TILED = 4096
"""What a picture that is to be cut into tiles is at most scaled up to, as transformers has it."""
MOST_PIXELS = 1 << 26
"""Of a picture that is scaled: a line of pixels, whose shorter edge is to be longer, would fill the memory."""


@dataclass(frozen=True)
class Tiles:
    """How a large picture is cut up.

    Attributes:
        longest_edge: the picture is first scaled so that its longer edge has so many pixels.
        edge: of a tile, in pixels; the picture is then scaled to multiples of it.
        whole: where it is true the picture is not cut up, but scaled to the size of one tile.
    """

    longest_edge: int
    edge: int
    whole: bool | None = field(default=None, metadata=strict_json.OPTIONAL)


@dataclass(frozen=True)
class ImagePreparation:
    """What is done to a picture, in this order.

    Attributes:
        height, width: of what the encoder takes, in pixels.
        resize: "exact" to height and width; "shortest_edge" so that the shorter edge has `edge` pixels, whatever the
            other then has; "within" likewise, but so that the longer edge has at most `longest`, and what is then
            missing of height and width is 0 (behind the normalisation), on the right and below; "tiles" as `tiles`
            says; "none".
        edge: see resize; 0 where it is not used.
        filter: of the scaling, by Pillow's name.
        crop: whether the middle of height x width is cut out, with black where the picture is too small.
        rescale: multiplies the bytes.
        mean, std: of each channel, red, green, blue: (x - mean) / std.
        tiles: only for resize "tiles".
        square: red, green and blue of what a picture is made square with before all else, on both sides of its shorter
            edge; None where it stays as it is.
        longest: only for resize "within".
        scaled: height and width of an exact resize before a crop, where they are not those of the crop.
        reverse: where it is true the channels are blue, green, red, and so are mean and std.
    """

    height: int
    width: int
    resize: Literal["exact", "shortest_edge", "within", "tiles", "none"]
    edge: int
    filter: Filter
    crop: bool
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    tiles: Tiles | None = field(default=None, metadata=strict_json.OPTIONAL)
    square: tuple[int, ...] | None = field(default=None, metadata=strict_json.OPTIONAL)
    longest: int | None = field(default=None, metadata=strict_json.OPTIONAL)
    scaled: tuple[int, ...] | None = field(default=None, metadata=strict_json.OPTIONAL)
    reverse: bool | None = field(default=None, metadata=strict_json.OPTIONAL)


@dataclass(frozen=True)
class Prepared:
    """A picture as the encoder takes it.

    Attributes:
        pixels: float32 [tiles, 3, height, width]; of a picture that was cut up the whole of it comes last.
        rows, columns: of tiles; 0 for a picture that was not cut up.
        original: height and width of the picture as it was given, upright.
        content: height and width of it within `pixels`; less than theirs where the rest is padding.
    """

    pixels: np.ndarray
    rows: int = 0
    columns: int = 0
    original: tuple[int, int] = (0, 0)
    content: tuple[int, int] = (0, 0)

    @property
    def mask(self) -> np.ndarray:
        """int64 [1, height, width]: 1 where the picture is, 0 where it was padded."""
        found = np.zeros((1, *self.pixels.shape[-2:]), np.int64)
        found[:, : self.content[0], : self.content[1]] = 1
        return found


def check_preparation(how: ImagePreparation) -> None:
    """Refuses what cannot be carried out.

    Raises:
        BundleError: a number is out of range.
    """
    sizes = [how.height, how.width, *([how.edge] if how.resize in ("shortest_edge", "within") else [])]
    sizes += [how.tiles.longest_edge, how.tiles.edge] if how.tiles else []
    sizes += [how.longest or 0] if how.resize == "within" else []
    sizes += how.scaled or ()
    if any(not 1 <= size <= LARGEST_EDGE for size in sizes) or (how.resize == "tiles") != (how.tiles is not None):
        raise BundleError("sizes of pictures are out of range", got=sizes, wanted=f"1..{LARGEST_EDGE}")
    if len(how.mean) != 3 or len(how.std) != 3 or any(s <= 0 for s in how.std):
        raise BundleError("mean and std are of three channels", got=(how.mean, how.std))
    if how.square is not None and (len(how.square) != 3 or any(not 0 <= c <= 255 for c in how.square)):
        raise BundleError("a color is three bytes", got=how.square)
    if how.scaled is not None and (len(how.scaled) != 2 or how.resize != "exact" or not how.crop):
        raise BundleError("a size before a crop, where there is none", got=how.scaled)
    if how.resize == "within" and (how.longest or 0) > min(how.height, how.width):
        raise BundleError("pictures that may be larger than what holds them", got=how.longest)
    if how.tiles and (how.height, how.width) != (how.tiles.edge, how.tiles.edge):
        raise BundleError("tiles are not what the encoder takes", got=how.tiles.edge, wanted=(how.height, how.width))


def prepare(picture: Any, how: ImagePreparation) -> Prepared:
    """A picture -> pixels.

    Args:
        picture: the path of a file or its bytes as a stream, an image of Pillow, or an array uint8 [height, width, 3].
        how: of the bundle.

    Raises:
        UsageError: it cannot be read, or is too large.
        MissingPackageError: Pillow is not installed.
    """
    image = open_picture(picture)
    original = (image.height, image.width)
    if how.square is not None:
        image = _squared(image, how.square)
    if how.tiles is not None:
        return replace(_tiled(image, how, how.tiles), original=original)
    if how.resize == "exact":
        height, width = how.scaled or (how.height, how.width)
        image = _scaled(image, (height, width), how)
    elif how.resize == "shortest_edge":
        image = _scaled(image, _to_shortest(image, how.edge), how)
    elif how.resize == "within":
        image = _scaled(image, to_within(original, how.edge, how.longest or 0, min(how.height, how.width)), how)
    array = np.asarray(image)
    if how.crop:
        array = _middle(array, how.height, how.width)
    content = array.shape[:2]
    if content != (how.height, how.width) and how.resize != "within":
        wanted = f"{how.width} x {how.height}"
        raise UsageError("a picture has another size than the model takes", got=content[::-1], wanted=wanted)
    padding = ((0, 0), (0, how.height - content[0]), (0, how.width - content[1]))
    return Prepared(np.pad(_normalised(array, how), padding)[None], original=original, content=content)


def open_picture(picture: Any) -> Any:
    """An image of Pillow, upright and in RGB.

    Raises:
        UsageError: it cannot be read, or is too large.
        MissingPackageError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingPackageError("pictures need Pillow", got=error, hint="pip install 'satchel[images]'") from error
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            got = f"{picture.dtype} {list(picture.shape)}"
            raise UsageError("an array that is no picture", got=got, wanted="uint8 [height, width, 3]")
        return Image.fromarray(picture)
    wanted = "a file that Pillow reads, such as PNG or JPEG"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(picture) if isinstance(picture, str | Path | io.BytesIO) else picture
            if max(image.size) > LARGEST_EDGE:
                raise UsageError("a picture is too large", got=image.size, wanted=f"edges of at most {LARGEST_EDGE}")
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, AttributeError, TypeError, Image.DecompressionBombError) as error:
        raise UsageError("a picture cannot be read", got=error, wanted=wanted) from None
    except Image.DecompressionBombWarning as error:
        raise UsageError("a picture is too large", got=error) from None


def _squared(image: Any, color: tuple[int, ...]) -> Any:
    """In the middle of a square of one color; where that is not even, nearer to the top or the left."""
    from PIL import Image

    edge = max(image.size)
    square = Image.new("RGB", (edge, edge), color)
    square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
    return square


def _scaled(image: Any, size: tuple[int, int], how: ImagePreparation) -> Any:
    """To (height, width)."""
    from PIL import Image

    if size[0] * size[1] > MOST_PIXELS:
        raise UsageError("a picture is too long for its width", got=image.size, wanted="a shape nearer to a square")
    return image.resize((size[1], size[0]), resample=Image.Resampling[how.filter.upper()])


def _to_shortest(image: Any, edge: int) -> tuple[int, int]:
    """(height, width) whose shorter one is `edge`."""
    width, height = image.size
    longer = int(edge * max(width, height) / min(width, height))
    return (longer, edge) if width <= height else (edge, longer)


def to_within(size: tuple[int, int], edge: int, longest: int, most: int) -> tuple[int, int]:
    """(height, width) -> the same whose shorter one is `edge`, or less where the longer would be beyond `longest`.

    One whose shorter edge is right already stays as it is, even with a longer one beyond `longest`, up to `most`.
    """
    short, long = min(size), max(size)
    exact = longest * short / long if long / short * edge > longest else float(edge)
    shorter = max(round(exact), 1)
    if shorter == short and long <= most:
        return size
    longer = max(int(exact * long / short), 1)
    return (longer, shorter) if size[1] < size[0] else (shorter, longer)


def _middle(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of [h, w, 3]; black is added around it where it is smaller, more of it at the top and left."""
    tall, wide = max(height, array.shape[0]), max(width, array.shape[1])
    if array.shape[:2] != (tall, wide):
        top, left = math.ceil((tall - array.shape[0]) / 2), math.ceil((wide - array.shape[1]) / 2)
        around = ((top, tall - array.shape[0] - top), (left, wide - array.shape[1] - left), (0, 0))
        array = np.pad(array, around)
    top, left = (tall - height) // 2, (wide - width) // 2
    return array[top : top + height, left : left + width]


def _normalised(array: np.ndarray, how: ImagePreparation) -> np.ndarray:
    """uint8 [height, width, 3] -> float32 [3, height, width]."""
    array = array[:, :, ::-1] if how.reverse else array
    scaled = (array.astype(np.float64) * how.rescale).astype(np.float32)
    values = (scaled - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _tiled(image: Any, how: ImagePreparation, tiles: Tiles) -> Prepared:
    """Tiles from left to right and top to bottom, then the whole picture at the size of one."""
    image = _scaled(image, _to_longest(image.size, tiles.longest_edge), how)
    if tiles.whole:
        return Prepared(_normalised(np.asarray(_scaled(image, (tiles.edge, tiles.edge), how)), how)[None])
    image = _scaled(image, _to_multiples(image.size, tiles.edge), how)
    edge, (width, height) = tiles.edge, image.size
    if width <= edge and height <= edge:
        return Prepared(_normalised(np.asarray(image), how)[None])
    rows, columns, array = height // edge, width // edge, np.asarray(image)
    cut = [array[r * edge : (r + 1) * edge, c * edge : (c + 1) * edge] for r in range(rows) for c in range(columns)]
    cut.append(np.asarray(_scaled(image, (edge, edge), how)))
    return Prepared(np.stack([_normalised(part, how) for part in cut]), rows, columns)


def _to_longest(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(height, width) whose longer one is `longest`; the other is even, and neither is beyond LONGEST_TILED."""
    width, height = size
    ratio = width / height
    if width >= height:
        width, height = longest, int(longest / ratio)
        height += height % 2
    else:
        height, width = longest, int(longest * ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)
    ratio = width / height
    if width >= height and width > LONGEST_TILED:
        width, height = LONGEST_TILED, int(LONGEST_TILED / ratio)
    elif height > LONGEST_TILED:
        height, width = LONGEST_TILED, int(LONGEST_TILED * ratio)
    return max(height, 1), max(width, 1)


def most_tiles(how: ImagePreparation) -> int:
    """Of any picture, the whole of it counted."""
    if how.tiles is None or how.tiles.whole:
        return 1
    edge = math.ceil(min(how.tiles.longest_edge, LONGEST_TILED) / how.tiles.edge)
    return edge**2 + 1 if edge > 1 else 1


def _to_multiples(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """(height, width), both multiples of `edge`."""
    width, height = size
    ratio = width / height
    if width >= height:
        width = math.ceil(width / edge) * edge
        height = math.ceil(int(width / ratio) / edge) * edge
    else:
        height = math.ceil(height / edge) * edge
        width = math.ceil(int(height * ratio) / edge) * edge
    return height, width


def stacked(pictures: Sequence[Prepared]) -> np.ndarray:
    """The tiles of several pictures, float32 [tiles, 3, height, width]."""
    return np.concatenate([picture.pixels for picture in pictures])
