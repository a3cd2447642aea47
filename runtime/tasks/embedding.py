"""Rows of the last layer -> one vector a text.

Data: `output`; `pooling`: "mean" over the tokens of the text, "cls" its first token, "max", "last" its last token, or
"none" where the output is one row a text already; `normalize`: to length 1. The answer is float32 [texts, channels].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from satchel.runtime import strict_json

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class Pooling:
    """The data of the step."""

    step: str
    output: str
    pooling: Literal["mean", "cls", "max", "last", "none"]
    normalize: bool


def answer(call: Call, data: Any) -> np.ndarray:
    """The vectors."""
    how = strict_json.decode(Pooling, data, "task.answer")
    rows = call.outputs[how.output].astype(np.float32)
    found = rows if how.pooling == "none" else pooled(rows, call.notes["mask"], how.pooling)
    if how.normalize:
        found = found / np.maximum(np.linalg.norm(found, axis=-1, keepdims=True), 1e-12)
    return np.asarray(found, np.float32)


def pooled(rows: np.ndarray, mask: np.ndarray, pooling: str) -> np.ndarray:
    """One row of several: float32 [texts, sequence, channels] and mask [texts, sequence] -> [texts, channels]."""
    seen = mask[:, :, None].astype(np.float32)
    if pooling == "cls":
        return rows[:, 0]
    if pooling == "last":
        return rows[np.arange(len(rows)), mask.sum(1) - 1]
    if pooling == "max":
        return np.asarray(np.where(seen > 0, rows, -np.inf).max(1))
    return np.asarray((rows * seen).sum(1) / np.maximum(seen.sum(1), 1e-9))
