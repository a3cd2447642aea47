"""Pictures as inputs and outputs. Scale and bias are ops of the program; here colors are ordered and axes moved.

Pixels are 0 to 255, or any half-precision number for GRAYSCALE_FLOAT16. A picture is never resized.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from satchel.runtime.coreml.features import Feature
from satchel.runtime.errors import UsageError

MODES = {"RGB": ("RGB", "RGBA"), "BGR": ("RGB", "RGBA"), "GRAYSCALE": ("L",), "GRAYSCALE_FLOAT16": ("F",)}
"""Color space -> the modes of Pillow that it takes. Alpha is ignored, as the format says of it."""


def to_tensor(feature: Feature, value: Any, rank: int) -> np.ndarray:
    """A picture -> the tensor that the program takes.

    Args:
        feature: the image as described.
        value: an image of Pillow; an array [H, W] or [H, W, 1] in gray; [H, W, 3] or [H, W, 4] in color, whose
            channels are red, green, blue (and an alpha that is ignored) whatever order the program has; or
            [1, C, H, W], which is the program's tensor as it is.
        rank: of the program's tensor: 4, or 3 where it has no axis of pictures.

    Returns:
        float32 [1, C, H, W] or [C, H, W].

    Raises UsageError for another size, mode or range of values.
    """
    array = _pixels(feature, value)
    if array.ndim == 4 and array.shape[0] == 1:
        tensor = array
        _check_shape(feature, array, np.moveaxis(array[0], 0, -1))
    else:
        picture = array[..., :3] if array.ndim == 3 and array.shape[-1] == 4 else array
        picture = picture[..., None] if picture.ndim == 2 else picture
        _check_shape(feature, array, picture)
        tensor = np.moveaxis(picture, -1, 0)[None]
        tensor = tensor[:, ::-1] if feature.color == "BGR" else tensor
    tensor = np.ascontiguousarray(tensor, dtype=np.float32)
    return tensor[0] if rank == 3 else tensor


def from_tensor(feature: Feature, tensor: np.ndarray) -> Any:
    """A tensor of the program -> a picture, of Pillow where that is installed.

    Values are rounded to the nearest whole one and limited to 0..255 (Apple documents neither); half-precision gray
    is kept.

    Args:
        feature: the image as described.
        tensor: [1, C, H, W] or [C, H, W].

    Returns:
        an image of mode "RGBA" (alpha 255), "L" or "F", as coremltools has them; without Pillow an array: uint8
        [H, W, 3] in red, green, blue, uint8 [H, W], or float32 [H, W].
    """
    picture = to_picture(feature, tensor)
    try:
        from PIL import Image  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return picture
    image = Image.fromarray(picture)
    return image.convert("RGBA") if picture.ndim == 3 else image


def to_picture(feature: Feature, tensor: np.ndarray) -> np.ndarray:
    """[1, C, H, W] or [C, H, W] -> [H, W] or [H, W, 3], red first; uint8, or float32 for half-precision gray."""
    channels = tensor[0] if tensor.ndim == 4 else tensor
    if feature.color == "GRAYSCALE_FLOAT16":
        with np.errstate(over="ignore"):
            return channels[0].astype(np.float16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        pixels = np.clip(np.rint(np.nan_to_num(channels, nan=0.0)), 0, 255).astype(np.uint8)
    if feature.color == "GRAYSCALE":
        return np.ascontiguousarray(pixels[0])
    pixels = pixels[::-1] if feature.color == "BGR" else pixels
    return np.ascontiguousarray(np.moveaxis(pixels, 0, -1))


def is_pillow(value: Any) -> bool:
    """Whether a value is an image of Pillow, which is not imported for that."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _pixels(feature: Feature, value: Any) -> np.ndarray:
    """The numbers of a picture, checked to be pixels of this color space."""
    if is_pillow(value) and value.mode not in MODES[feature.color]:
        mode = MODES[feature.color][0]
        hint = f'convert it: image.convert("{mode}")'
        raise UsageError(f"mode of image {feature.name}", got=value.mode, wanted=MODES[feature.color], hint=hint)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise UsageError(f"image {feature.name}", got=array.dtype.name, wanted=_wanted(feature))
    if feature.color == "GRAYSCALE_FLOAT16":
        with np.errstate(over="ignore"):
            return array.astype(np.float16)
    if array.dtype != np.uint8 and array.size:
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 255) or (array.dtype.kind == "f" and (array != np.rint(array)).any()):
            hint = "give pixels of 0 to 255: the program itself scales and shifts them"
            got = f"{array.dtype.name} of {low:g} to {high:g}"
            raise UsageError(f"pixels of image {feature.name}", got=got, wanted="whole numbers, 0 to 255", hint=hint)
    return array


def _check_shape(feature: Feature, given: np.ndarray, picture: np.ndarray) -> None:
    """Raises UsageError unless a picture [H, W, C] has as many channels as the image, and a size that it allows."""
    gray = len(feature.shape) == 2
    shape = picture.shape[:2] if gray and picture.shape[2:] == (1,) else picture.shape
    if not feature.allows(shape):
        hint = "resize or crop it: an image is never resized here"
        raise UsageError(f"size of image {feature.name}", got=list(given.shape), wanted=_wanted(feature), hint=hint)


def _wanted(feature: Feature) -> str:
    return (
        f"{feature.color} of {feature.allowed()} ({'height, width' if len(feature.shape) == 2 else 'height, width, 3'})"
    )
