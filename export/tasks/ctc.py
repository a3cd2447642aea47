"""Speech -> text by models that say a character, or nothing, for each frame."""

from __future__ import annotations

from typing import Any

from satchel.export.tasks.audio import frame_samples, sound_preparation
from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.waveform import waveform_graph
from satchel.runtime import strict_json
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.quiet import quiet_imports
from satchel.runtime.tasks.waveform import Waveform

VOCABULARY = "vocabulary.json"


def build(checkpoint: TaskCheckpoint) -> Built:
    """The model, its characters, and how long speech is cut."""
    config = checkpoint.config
    how = sound_preparation(checkpoint, long=True)
    if not isinstance(how.step, Waveform):
        raise CheckpointError("a model of another kind than Wav2Vec2", got=config.model_type, wanted="waveforms")
    tokenizer = _tokenizer(checkpoint)
    answer = {
        "step": "ctc", "output": "logits", "vocabulary": VOCABULARY, "blank": _id(tokenizer, tokenizer.pad_token),
        "delimiter": _id(tokenizer, tokenizer.word_delimiter_token), "space": tokenizer.replace_word_delimiter_char,
        "lower": bool(tokenizer.do_lower_case), "frame": frame_samples(config), "rate": how.step.rate,
        "timestamps": False,
    }  # fmt: skip
    if answer["blank"] is None:
        raise CheckpointError("the tokenizer has no token that stands for nothing", got=tokenizer.pad_token)
    files = {VOCABULARY: strict_json.canonical(_characters(tokenizer, int(config.vocab_size)))}
    entry = TaskEntry(checkpoint.task, {"audio": how.data}, answer)
    return Built({"model": waveform_graph(checkpoint, how.step)}, entry, {**how.files, **files})


def _tokenizer(checkpoint: TaskCheckpoint) -> Any:
    """transformers' tokenizer of characters; CheckpointError where there is none of the kind."""
    with quiet_imports():
        from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer
    found = checkpoint.loaded(AutoTokenizer)
    if not isinstance(found, Wav2Vec2CTCTokenizer):
        got = type(found).__name__
        raise CheckpointError("a tokenizer of another kind", got=got, wanted="Wav2Vec2CTCTokenizer: vocab.json")
    return found


def _id(tokenizer: Any, token: str | None) -> int | None:
    return None if token is None else int(tokenizer.convert_tokens_to_ids(token))


def _characters(tokenizer: Any, count: int) -> list[str]:
    """In order of their ids; an id that stands for none is an empty text."""
    names = {number: text for text, number in tokenizer.get_vocab().items()}
    return [names.get(number, "") for number in range(max(count, *(number + 1 for number in names)))]
