"""Classes of a picture."""

from __future__ import annotations

from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.images import image_graph, images_of
from satchel.export.tasks.text_classification import TOP, function
from satchel.runtime.module.manifest import TaskEntry


def build(checkpoint: TaskCheckpoint) -> Built:
    """The classifier, its labels, and what is done to a picture first."""
    images = images_of(checkpoint)
    answer = {
        "step": "labels", "output": "logits", "labels": checkpoint.labels, "function": function(checkpoint), "top": TOP,
    }  # fmt: skip
    graph = image_graph(checkpoint, images, {"logits": "logits"})
    return Built({"model": graph}, TaskEntry(checkpoint.task, {"image": images.step}, answer))
