"""The op that turns probabilities into a classifier's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from satchel.runtime.mil.ops.base import Array, Op, pick


def classify(probabilities: Array, classes: Any) -> tuple[str | int, dict[str | int, float]]:
    """(the likeliest class, every class's probability). Of equals the first is the likeliest.

    Args:
        probabilities: any shape with as many elements as there are classes.
        classes: a list of str or of int64.
    """
    labels = [label if isinstance(label, str) else int(label) for label in np.asarray(classes, object).reshape(-1)]
    values = np.asarray(probabilities).reshape(-1)
    if len(labels) != len(values):
        raise ValueError(f"{len(values)} probabilities for {len(labels)} classes")
    return labels[int(values.argmax())], dict(zip(labels, values.tolist(), strict=True))


OPS: dict[str, Op] = {"classify": pick(classify)}
