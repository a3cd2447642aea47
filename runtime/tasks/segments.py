"""Logits of classes for each place, mostly of a coarser grid -> the class of each pixel of the picture.

Data: `output` [pictures, classes, rows, columns], `labels`, names in order. Logits are scaled to the picture
bilinearly, then the largest wins. The answer is, for each picture, {"segments", "map"}: a list of {"label", "id",
"share"} (of the pixels), the largest first, and the classes' numbers, uint8 (uint16 of more than 256 classes) [height,
width].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.resampling import bilinear_strip

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call

STRIP = 1 << 24
"""Logits that are scaled at a time."""


@dataclass(frozen=True)
class Segments:
    """The data of the step."""

    step: str
    output: str
    labels: tuple[str, ...]


def answer(call: Call, data: Any) -> list[dict[str, Any]]:
    """The classes in each picture."""
    from satchel.runtime.tasks import check_labels

    how = strict_json.decode(Segments, data, "task.answer")
    check_labels(how.labels, call.outputs[how.output].shape[1])
    rows = zip(call.outputs[how.output], call.notes["pictures"], strict=True)
    return [_told(classes_of(logits, *picture.original), how.labels) for logits, picture in rows]


def classes_of(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [classes, rows, columns] -> numbers of classes [height, width]; strip by strip, for large pictures."""
    count = len(logits)
    found = np.empty((height, width), np.uint8 if count <= 256 else np.uint16)
    step = max(1, STRIP // (count * width))
    for first in range(0, height, step):
        last = min(first + step, height)
        found[first:last] = bilinear_strip(logits, height, width, first, last).argmax(0)
    return found


def _told(found: np.ndarray, labels: tuple[str, ...]) -> dict[str, Any]:
    counts = np.bincount(found.ravel(), minlength=len(labels))
    order = [i for i in np.argsort(-counts, kind="stable") if counts[i]]
    segments = [{"label": labels[i], "id": int(i), "share": float(counts[i] / found.size)} for i in order]
    return {"segments": segments, "map": found}
