"""Names, places and the like in a text."""

from __future__ import annotations

from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.text import text_graph, tokenizer_files, tokens_step
from satchel.runtime.module.manifest import TaskEntry


def build(checkpoint: TaskCheckpoint) -> Built:
    """The tagger, and its labels."""
    answer = {"step": "token_labels", "output": "logits", "labels": checkpoint.labels, "outside": "O"}
    entry = TaskEntry(checkpoint.task, {"text": tokens_step(checkpoint)}, answer)
    return Built({"model": text_graph(checkpoint, {"logits": "logits"})}, entry, tokenizer_files(checkpoint))
