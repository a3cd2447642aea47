"""The class of each pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.images import image_graph, images_of, outcome
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.tasks.segments import classes_of


def build(checkpoint: TaskCheckpoint) -> Built:
    """The model, and its labels."""
    images = images_of(checkpoint, places=True)
    _check(images.processor)
    answer = {"step": "segments", "output": "logits", "labels": checkpoint.labels}
    graph = image_graph(checkpoint, images, {"logits": "logits"})
    return Built({"model": graph}, TaskEntry(checkpoint.task, {"image": images.step}, answer))


def _check(processor: Any) -> None:
    """Raises CheckpointError where the model's own processor makes other classes of random logits."""
    logits = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    given = {"logits": torch.from_numpy(logits)[None]}
    (theirs,) = outcome(processor, "post_process_semantic_segmentation", given, (19, 31))
    if not np.array_equal(theirs.numpy(), classes_of(logits, 19, 31)):
        raise CheckpointError("classes of pixels are found in a way that is not known", got=type(processor).__name__)
