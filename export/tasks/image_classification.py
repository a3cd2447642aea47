"""Classes of a picture."""

from __future__ import annotations

from satchel.export.tasks.base import Built, Graph, Wrapped
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.images import PIXELS, image_examples, image_preparation, pixels_step
from satchel.export.tasks.text_classification import TOP, function
from satchel.runtime.module.manifest import TaskEntry


def build(checkpoint: TaskCheckpoint) -> Built:
    """The classifier, its labels, and what is done to a picture first."""
    how = image_preparation(checkpoint)
    graph = Graph(Wrapped(checkpoint.model, (PIXELS,), {"logits": "logits"}), (PIXELS,), image_examples(how))
    answer = {
        "step": "labels", "output": "logits", "labels": checkpoint.labels, "function": function(checkpoint), "top": TOP,
    }  # fmt: skip
    return Built({"model": graph}, TaskEntry(checkpoint.task, {"image": pixels_step(how)}, answer))
