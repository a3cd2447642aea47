"""What all tasks over pictures share: preparation as data, held against transformers' own, and example pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.vision.preprocess import preparation_of
from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError, CheckpointError
from satchel.runtime.images import ImagePreparation, check_preparation, prepare
from satchel.runtime.quiet import quiet_imports

PIXELS = "pixel_values"
SAME = 0.02
"""How far a pixel may be from what transformers makes of it: a byte's rounding is 1/255 over a standard deviation."""
OPTIONS = (
    "size", "crop_size", "resample", "do_center_crop", "do_resize", "do_rescale", "do_normalize", "rescale_factor",
    "image_mean", "image_std", "do_pad",
)  # fmt: skip


def image_preparation(checkpoint: TaskCheckpoint) -> ImagePreparation:
    """What is to be done to a picture, as the model's own processor does it.

    Raises:
        CheckpointError: the processor does what cannot be said as data.
    """
    processor = _processor(checkpoint)
    options = {name: getattr(processor, name, None) for name in OPTIONS}
    options = {k: dict(v) if hasattr(v, "items") else v for k, v in options.items() if v is not None}
    crop = getattr(processor, "crop_pct", None)
    size = options.get("size") or {}
    if crop is not None and "shortest_edge" in size:  # ConvNeXt's: larger first, then the middle
        edge = int(size["shortest_edge"])
        if edge < 384:
            options |= {"size": {"shortest_edge": int(edge / crop)}, "crop_size": edge, "do_center_crop": True}
        else:
            options |= {"size": {"height": edge, "width": edge}}
    options.setdefault("do_center_crop", False)
    size = getattr(checkpoint.config, "image_size", None)
    try:
        found = preparation_of(options, size if isinstance(size, int) else 224)
        check_preparation(found)
    except (KeyError, TypeError, ValueError, IndexError, BundleError) as error:
        raise CheckpointError("pictures are prepared in a way that is not known", got=error) from error
    _check(processor, found)
    return found


def _processor(checkpoint: TaskCheckpoint) -> Any:
    with quiet_imports():
        from transformers import AutoImageProcessor
    try:
        with quiet_imports():
            return AutoImageProcessor.from_pretrained(
                checkpoint.folder, trust_remote_code=False, local_files_only=True, use_fast=False
            )
    except Exception as error:  # transformers raises whatever its parts do
        raise CheckpointError("the model does not say how pictures are prepared", got=error) from error


def _check(processor: Any, how: ImagePreparation) -> None:
    """Raises CheckpointError where our steps give other pixels than the processor."""
    picture = pictures()[0]
    wanted = np.asarray(processor(images=[picture], return_tensors="np")[PIXELS])
    found = prepare(picture, how).pixels
    if found.shape != wanted.shape or float(np.abs(found - wanted).max()) > SAME / min(how.std):
        got = found.shape if found.shape != wanted.shape else f"{np.abs(found - wanted).max():.3g} apart"
        raise CheckpointError("our preparation of pictures is not the model's", got=got, wanted=wanted.shape)


def pictures() -> list[Any]:
    """Drawn: waves and edges in all colors, of three shapes."""
    from PIL import Image

    found = []
    for height, width in ((300, 400), (400, 300), (320, 320)):
        y, x = np.mgrid[0:height, 0:width]
        waves = [128 + 100 * np.sin(x / a) * np.cos(y / b) for a, b in ((9, 31), (23, 13), (41, 7))]
        values = np.stack(waves, -1)
        values[(x - width // 2) ** 2 + (y - height // 2) ** 2 < (height // 4) ** 2] *= 0.4
        found.append(Image.fromarray(values.clip(0, 255).astype(np.uint8)))
    return found


def image_examples(how: ImagePreparation) -> tuple[dict[str, torch.Tensor], ...]:
    """Prepared pictures, one an example."""
    return tuple({PIXELS: torch.from_numpy(prepare(picture, how).pixels)} for picture in pictures())


def pixels_step(how: ImagePreparation) -> dict[str, Any]:
    """The data of runtime/tasks/pixels.py."""
    return {"step": "pixels", "input": PIXELS, "images": strict_json.encode(how)}
