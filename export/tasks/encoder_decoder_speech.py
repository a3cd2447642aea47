"""Speech -> text by an encoder of spectrograms and a decoder of ids, as Whisper is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from satchel.export.tasks.audio import features, sound_preparation, sounds
from satchel.export.tasks.base import Built
from satchel.export.tasks.checkpoint import TaskCheckpoint
from satchel.export.tasks.speech_graphs import graphs
from satchel.export.tasks.text import TEXTS, tokenizer_files
from satchel.runtime.errors import CheckpointError
from satchel.runtime.module.manifest import TaskEntry
from satchel.runtime.quiet import quiet_imports
from satchel.runtime.tasks.log_mel import LogMel

MEASURED = 32
"""Ids of each transcript that the decoder's activations are measured on."""


def build(checkpoint: TaskCheckpoint) -> Built:
    """Encoder and decoder, how sounds are prepared, and how ids are chosen."""
    config, model = checkpoint.config, checkpoint.model
    layers = getattr(getattr(model, "get_decoder", lambda: None)(), "layers", ())
    if not layers or not all(hasattr(layer, "encoder_attn") for layer in layers):
        raise CheckpointError("an encoder and decoder of another kind than Whisper's", got=config.model_type)
    how = sound_preparation(checkpoint, long=True)
    if not isinstance(how.step, LogMel):
        raise CheckpointError("an encoder and decoder of another kind than Whisper's", got=config.model_type)
    answer = transcript_step(model, how.step)
    heard = [torch.from_numpy(features(one, how))[None] for one in sounds(how.step.rate)]
    forced = [answer["start"], *(i for i in answer["forced"] if i is not None)]
    texts = [[*forced, *checkpoint.tokenizer.encode(text, add_special_tokens=False)][:MEASURED] for text in TEXTS]
    slots = int(config.max_target_positions)
    built = graphs(model, slots, heard, [ids[:slots] for ids in texts[: len(heard)]])
    entry = TaskEntry(checkpoint.task, {"audio": how.data}, answer)
    return Built(built, entry, {**how.files, **tokenizer_files(checkpoint)})


def transcript_step(model: Any, how: LogMel) -> dict[str, Any]:
    """The data of runtime/tasks/transcript.py, from generation_config.json.

    Raises:
        CheckpointError: it asks for something else than greedy decoding.
    """
    config, own = model.config, model.generation_config
    if (getattr(own, "num_beams", None) or 1) > 1 or getattr(own, "do_sample", None):
        raise CheckpointError("a generation_config.json that asks for more than greedy decoding", got=own.num_beams)
    strides = model.get_encoder().conv1.stride[0] * model.get_encoder().conv2.stride[0]
    frames = strides * int(config.max_source_positions)
    codes = {token.strip("<|>"): int(number) for token, number in (getattr(own, "lang_to_id", None) or {}).items()}
    longest = getattr(own, "max_length", None)
    return {
        "step": "transcript", "layers": len(model.get_decoder().layers), "frames": frames, "stride": strides,
        "frame_seconds": how.hop / how.rate, "slots": int(config.max_target_positions),
        "start": int(_first(own.decoder_start_token_id, config.decoder_start_token_id)),
        "ends": _ids(_first(own.eos_token_id, config.eos_token_id)),
        "forced": _forced(own, config), "languages": codes, "names": _names(codes),
        "tasks": {str(k): int(v) for k, v in (getattr(own, "task_to_id", None) or {}).items()},
        "no_timestamps": getattr(own, "no_timestamps_token_id", None),
        "latest_start": getattr(own, "max_initial_timestamp_index", None),
        "suppress": _ids(getattr(own, "suppress_tokens", None)),
        "suppress_first": _ids(getattr(own, "begin_suppress_tokens", None)),
        "longest": None if longest is None else int(longest),
        "language": _language(getattr(own, "language", None)), "task": getattr(own, "task", None) or "",
        "timestamps": bool(getattr(own, "return_timestamps", False)), "translate": False,
    }  # fmt: skip


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _ids(value: Any) -> list[int]:
    """One id, several, or none, as a list."""
    return [] if value is None else [int(value)] if isinstance(value, int) else [int(i) for i in value]


def _forced(own: Any, config: Any) -> list[int | None]:
    """What older files say comes behind the start, an id each; null where the language is to be found out."""
    pairs: Sequence[Any] = _first(getattr(own, "forced_decoder_ids", None), getattr(config, "forced_decoder_ids", None))
    found = [None if number is None else int(number) for _, number in pairs or ()]
    if [place for place, _ in pairs or ()] != list(range(1, len(found) + 1)):
        raise CheckpointError("forced_decoder_ids that leave places out", got=pairs)
    return found


def _names(codes: Mapping[str, int]) -> dict[str, str]:
    """Name of a language -> its code, of those that the model knows."""
    with quiet_imports():
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE
    return {name: code for name, code in sorted(TO_LANGUAGE_CODE.items()) if code in codes}


def _language(given: str | None) -> str:
    return (given or "").strip("<|>").lower()
