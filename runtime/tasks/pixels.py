"""Pictures -> pixels: resized, cropped and normalised as the model was trained (runtime/images.py).

Data: `input`, `images` (an ImagePreparation, see "vision" in FORMAT.md), and where pictures are padded perhaps `mask`,
an input that says where. Given is "image", a path, an image of Pillow
or an array uint8 [height, width, 3], or a list of them. Notes: "pictures", what was made of each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import UsageError
from satchel.runtime.images import ImagePreparation
from satchel.runtime.images import prepare as prepare_image

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class Pixels:
    """The data of the step."""

    step: str
    input: str
    images: ImagePreparation
    mask: str | None = field(default=None, metadata=strict_json.OPTIONAL)


def prepare(call: Call, data: Any) -> None:
    """Adds pixels float32 [pictures, 3, height, width], and the mask int64 [pictures, height, width]."""
    how = strict_json.decode(Pixels, data, "task.inputs.image")
    given = call.given["image"]
    found = [prepare_image(one, how.images) for one in (given if isinstance(given, list | tuple) else [given])]
    if not found:
        raise UsageError("no picture", got=given, wanted="one or more")
    call.inputs[how.input] = np.concatenate([one.pixels for one in found])
    if how.mask is not None:
        call.inputs[how.mask] = np.concatenate([one.mask for one in found])
    call.notes["pictures"] = found
