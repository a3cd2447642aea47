"""How far away each pixel is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.images import image_graph, images_of, outcome
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.resampling import bicubic

OUTPUT = "predicted_depth"


def build(checkpoint: TaskCheckpoint) -> Built:
    """The model."""
    images = images_of(checkpoint, places=True)
    _check(images.processor)
    graph = image_graph(checkpoint, images, {OUTPUT: OUTPUT})
    entry = TaskEntry(checkpoint.task, {"image": images.step}, {"step": "depth", "output": OUTPUT})
    return Built({"model": graph}, entry)


def _check(processor: Any) -> None:
    """Raises CheckpointError where the model's own processor scales random depths otherwise."""
    values = np.random.default_rng(0).normal(size=(6, 7)).astype(np.float32)
    given = {OUTPUT: torch.from_numpy(values)[None]}
    (theirs,) = outcome(processor, "post_process_depth_estimation", given, (19, 31))
    if not np.allclose(theirs[OUTPUT].numpy(), bicubic(values, 19, 31), atol=1e-4):
        raise CheckpointError("depths are scaled to the picture in an unknown way", got=type(processor).__name__)
