"""Vectors of pictures and of labels -> which label fits a picture best.

Data: `image` and `text`, the outputs of the parts of the same names; `scale` and `bias`, which the cosine of two
vectors is multiplied with and added to; `function`: "softmax" over the labels, or "sigmoid", each on its own.
The labels are what is given as "text". The answer is, for each picture, a list of {"label", "score"}, the likeliest
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from satchel.runtime import strict_json

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class ZeroShot:
    """The data of the step."""

    step: str
    image: str
    text: str
    scale: float
    bias: float
    function: Literal["softmax", "sigmoid"]


def answer(call: Call, data: Any) -> list[list[dict[str, Any]]]:
    """The labels of each picture."""
    from satchel.runtime.tasks.labels import ranked, scores

    how = strict_json.decode(ZeroShot, data, "task.answer")
    pictures, texts = call.run("image")[how.image], call.run("text")[how.text]
    labels = tuple(call.notes["given"])
    return [ranked(row, labels, len(labels)) for row in scores(logits(pictures, texts, how), how.function)]


def logits(pictures: np.ndarray, texts: np.ndarray, how: ZeroShot) -> np.ndarray:
    """float [pictures, channels] and [texts, channels] -> float64 [pictures, texts]."""
    return np.asarray(_unit(pictures) @ _unit(texts).T * how.scale + how.bias)


def _unit(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), 1e-12))
