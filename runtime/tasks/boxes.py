"""Logits and boxes of queries -> what is in a picture, and where.

Data: `logits`, `boxes` (outputs; a box is its middle, width and height, all as shares of the picture), `labels`, names
in order; `function`: "softmax", where the last class is "nothing" and each query has one class, or "sigmoid", where
each class of each query counts for itself; `top`, how many of the likeliest are looked at, 0 for as many as there are
queries; `threshold`: what a score must be above.
The answer is, for each picture, a list of {"label", "score", "box"}, the likeliest first; a box is left, top, right and
bottom in pixels of the picture as it was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from satchel.runtime import strict_json

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class Boxes:
    """The data of the step."""

    step: str
    logits: str
    boxes: str
    labels: tuple[str, ...]
    function: Literal["softmax", "sigmoid"]
    threshold: float
    top: int


def answer(call: Call, data: Any) -> list[list[dict[str, Any]]]:
    """The things in each picture."""
    from satchel.runtime.tasks import check_labels

    how = strict_json.decode(Boxes, data, "task.answer")
    check_labels(how.labels, call.outputs[how.logits].shape[-1] - (how.function == "softmax"))
    rows = zip(call.outputs[how.logits], call.outputs[how.boxes], call.notes["pictures"], strict=True)
    return [_told(*found(logits, boxes, how), picture.original, how) for logits, boxes, picture in rows]


def found(logits: np.ndarray, boxes: np.ndarray, how: Boxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, classes and boxes above the threshold, the likeliest first; of equal ones the lower query."""
    from satchel.runtime.tasks.labels import scores

    table, top = scores(logits, how.function), how.top or len(logits)
    if how.function == "softmax":
        table = table[:, :-1]
        queries, classes = np.arange(len(table)), table.argmax(-1)
    else:
        best = np.argsort(-table.ravel(), kind="stable")[:top]
        queries, classes = np.divmod(best, table.shape[1])
    likely = table[queries, classes]
    order = [i for i in np.argsort(-likely, kind="stable")[:top] if likely[i] > how.threshold]
    return likely[order], classes[order], boxes[queries[order]]


def _told(
    likely: np.ndarray, classes: np.ndarray, boxes: np.ndarray, size: tuple[int, int], how: Boxes
) -> list[dict[str, Any]]:
    corners = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], -1)
    pixels = corners.astype(np.float64) * (*size[::-1], *size[::-1])
    rows = zip(classes, likely, pixels, strict=True)
    return [{"label": how.labels[c], "score": float(s), "box": [float(x) for x in box]} for c, s, box in rows]
