"""Depths of a coarser grid -> the depth of each pixel of the picture.

Data: `output` [pictures, rows, columns]. It is scaled to the picture bicubically. The answer is, for each picture,
{"smallest", "largest", "map"}: float32 [height, width] in the model's own unit; most models give the inverse of a
distance, without a unit, so that what is near is large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from satchel.runtime import strict_json
from satchel.runtime.resampling import bicubic

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class Depth:
    """The data of the step."""

    step: str
    output: str


def answer(call: Call, data: Any) -> list[dict[str, Any]]:
    """The depths in each picture."""
    how = strict_json.decode(Depth, data, "task.answer")
    rows = zip(call.outputs[how.output], call.notes["pictures"], strict=True)
    maps = [bicubic(values, *picture.original) for values, picture in rows]
    return [{"smallest": float(one.min()), "largest": float(one.max()), "map": one} for one in maps]
