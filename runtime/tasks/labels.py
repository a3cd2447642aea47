"""Logits of classes -> names and probabilities, the likeliest first.

Data: `output`; `labels`, names in order; `function`: "softmax", "sigmoid" (each class on its own) or "none"; `top`, how
many are told. The answer is, for each text or picture, a list of {"label", "score"}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from satchel.runtime import strict_json

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class Labels:
    """The data of the step."""

    step: str
    output: str
    labels: tuple[str, ...]
    function: Literal["softmax", "sigmoid", "none"]
    top: int


def answer(call: Call, data: Any) -> list[list[dict[str, Any]]]:
    """The classes of each."""
    from satchel.runtime.tasks import check_labels

    how = strict_json.decode(Labels, data, "task.answer")
    check_labels(how.labels, call.outputs[how.output].shape[-1])
    return [ranked(row, how.labels, how.top) for row in scores(call.outputs[how.output], how.function)]


def scores(logits: np.ndarray, function: str) -> np.ndarray:
    """Logits as what `function` makes of them."""
    from satchel.runtime.tasks import softmax

    if function == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))))
    return softmax(logits) if function == "softmax" else logits.astype(np.float64)


def ranked(row: np.ndarray, labels: tuple[str, ...], top: int) -> list[dict[str, Any]]:
    """The classes with the highest scores; of equal ones the lower number first."""
    order = np.lexsort((np.arange(len(row)), -row))[:top]
    return [{"label": labels[i], "score": float(row[i])} for i in order]
