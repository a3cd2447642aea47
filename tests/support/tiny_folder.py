"""A tiny Llama as a Hugging Face folder, with a byte-level tokenizer: what a user would pass to `satchel export`."""

from __future__ import annotations

from pathlib import Path

from tiny_checkpoints import save_tokenizer
from tiny_llama import tiny_llama


def tiny_folder(path: Path, *, tied: bool = True, tokenizer: bool = True, **options: object) -> Path:
    """Saves the model by transformers itself; 320 ids, of which the tokenizer uses 265."""
    reference, _ = tiny_llama(tied=tied, vocab=320, **options)  # type: ignore[arg-type]
    reference.save_pretrained(path)
    if tokenizer:
        save_tokenizer(path)
    return path
