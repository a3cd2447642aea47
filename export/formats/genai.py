"""genai_config.json, by which onnxruntime-genai runs a model folder. The bundle puts the tokenizer beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satchel.export.families.base import DecoderConfig

SEARCH: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": True,
    "min_length": 0,
    "num_beams": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
}
"""Greedy; the checkpoint's generation defaults go over it."""


def write_config(
    folder: Path,
    config: DecoderConfig,
    context_length: int,
    *,
    filename: str = "model.onnx",
    bos_token_id: int | None = None,
    eos_token_ids: Sequence[int] = (),
    search: Mapping[str, Any] | None = None,
    threads: int | None = None,
) -> Path:
    """Writes genai_config.json.

    Args:
        folder: of the model file.
        config: shape of the model.
        context_length: tokens that the cache holds.
        filename: of the model, relative to the folder.
        bos_token_id, eos_token_ids: by default those of `config`; the tokenizer may know further stop ids.
        search: search options of genai (temperature, top_k, do_sample ...), over the greedy defaults.
        threads: intra-op threads; genai's choice if None.
    """
    bos = config.bos_token_id if bos_token_id is None else bos_token_id
    eos = list(eos_token_ids or config.eos_token_ids)
    session: dict[str, Any] = {"log_id": "onnxruntime-genai", "provider_options": []}
    if threads is not None:
        session["intra_op_num_threads"] = threads
    document = {
        "model": {
            "type": "decoder",
            "bos_token_id": 0 if bos is None else bos,
            "eos_token_id": eos[0] if len(eos) == 1 else eos,
            "pad_token_id": eos[0] if eos else 0,
            "context_length": context_length,
            "vocab_size": config.vocab_size,
            "decoder": _decoder(config, filename, session),
        },
        "search": SEARCH | {"max_length": context_length} | dict(search or {}) | {"past_present_share_buffer": True},
    }
    path = folder / "genai_config.json"
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _decoder(config: DecoderConfig, filename: str, session: dict[str, Any]) -> dict[str, Any]:
    return {
        "session_options": session,
        "filename": filename,
        "head_size": config.head_dim,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "num_key_value_heads": config.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
