"""Things in a picture, each with a box around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.images import image_graph, images_of, outcome
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.tasks.boxes import Boxes, found

OUTPUTS = {"logits": "logits", "pred_boxes": "pred_boxes"}
THRESHOLD = 0.5
"""As in transformers' pipeline."""
QUERIES = 400
"""More than any processor looks at."""


def build(checkpoint: TaskCheckpoint) -> Built:
    """The detector, its labels, and how its queries are told."""
    images = images_of(checkpoint, places=True)
    function, top = _method(images.processor, len(checkpoint.labels))
    answer = {
        "step": "boxes", "logits": "logits", "boxes": "pred_boxes", "labels": checkpoint.labels, "function": function,
        "threshold": THRESHOLD, "top": top,
    }  # fmt: skip
    graph = image_graph(checkpoint, images, OUTPUTS)
    return Built({"model": graph}, TaskEntry(checkpoint.task, {"image": images.step}, answer))


def _method(processor: Any, classes: int) -> tuple[str, int]:
    """(function, top) of the step with which it tells what the model's own processor tells, of random logits.

    Raises:
        CheckpointError: there is none.
    """
    rng = np.random.default_rng(0)
    boxes = rng.random((QUERIES, 4), np.float32)
    for function in ("softmax", "sigmoid"):
        logits = rng.normal(size=(QUERIES, classes + (function == "softmax"))).astype(np.float32)
        given = {"logits": torch.from_numpy(logits)[None], "pred_boxes": torch.from_numpy(boxes)[None]}
        (theirs,) = outcome(processor, "post_process_object_detection", given, (1, 1), threshold=0.0)
        order = theirs["scores"].argsort(descending=True)
        count = len(order)
        how = Boxes("boxes", "", "", (), function, 0.0, count)  # type: ignore[arg-type]
        scores, kinds, places = found(logits, boxes, how)
        corners = np.concatenate([places[:, :2] - places[:, 2:] / 2, places[:, :2] + places[:, 2:] / 2], -1)
        same = len(scores) == count and np.array_equal(kinds, theirs["labels"][order].numpy())
        if same and np.allclose(scores, theirs["scores"][order]) and np.allclose(corners, theirs["boxes"][order]):
            return function, count if count < QUERIES else 0
    raise CheckpointError("boxes are made of the outputs in a way that is not known", got=type(processor).__name__)
