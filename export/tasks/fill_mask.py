"""What belongs where a text has a mask."""

from __future__ import annotations

from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.text import IDS, TEXTS, text_graph, tokenizer_files, tokens_step
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry

TOP = 5


def build(checkpoint: TaskCheckpoint) -> Built:
    """The model, and which id is the mask."""
    mask = checkpoint.tokenizer.mask_token_id
    if mask is None:
        raise CheckpointError("the tokenizer has no mask", got=type(checkpoint.tokenizer).__name__)
    answer = {"step": "masked_tokens", "output": "logits", "ids": IDS, "mask_id": int(mask), "top": TOP}
    entry = TaskEntry(checkpoint.task, {"text": tokens_step(checkpoint)}, answer)
    texts = [text.replace(" the ", f" {checkpoint.tokenizer.mask_token} ", 1) for text in TEXTS]
    graph = text_graph(checkpoint, {"logits": "logits"}, texts=texts)
    return Built({"model": graph}, entry, tokenizer_files(checkpoint))
