"""Reading a Hugging Face configuration: what is structural is read or refused, never passed over.

And what else families share: tables of tensor names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from satchel.export.families.base import DecoderConfig
from satchel.runtime.errors import CheckpointError

# The largest values that are taken seriously; beyond them a configuration is damaged or hostile.
LIMITS = {
    "vocab_size": 1 << 22,
    "hidden_size": 1 << 18,
    "intermediate_size": 1 << 20,
    "num_hidden_layers": 1024,
    "num_attention_heads": 4096,
    "num_key_value_heads": 4096,
    "head_dim": 4096,
    "max_position_embeddings": 1 << 31,
}

ACTIVATIONS: dict[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

HARMLESS = frozenset({
    "_name_or_path", "_model_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache",
    "initializer_range",
    "attention_dropout", "hidden_dropout", "pretraining_tp", "pad_token_id", "unk_token_id", "sep_token_id",
    "cls_token_id", "decoder_start_token_id", "max_length", "min_length", "max_new_tokens", "do_sample",
    "num_beams", "num_beam_groups", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
    "length_penalty", "diversity_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "early_stopping", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens",
    "begin_suppress_tokens", "remove_invalid_values", "exponential_decay_length_penalty", "num_return_sequences",
    "output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate",
    "id2label", "label2id", "problem_type", "finetuning_task", "task_specific_params", "tokenizer_class", "prefix",
    "torchscript", "tf_legacy_loss", "use_bfloat16", "chunk_size_feed_forward", "is_decoder", "is_encoder_decoder",
    "gradient_checkpointing", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset",
    "_attn_implementation_internal", "_commit_hash", "transformers.js_config", "unsloth_fixed", "unsloth_version",
    "model_name",
})  # fmt: skip
"""Keys that say nothing about what the network computes: training, sampling, bookkeeping."""


def count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """A positive integer; `default` where the key is missing or null, which raises if there is no default."""
    value = config.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LIMITS[key]:
        raise CheckpointError(
            f"the configuration's '{key}' is not usable",
            got=repr(value)[:80],
            wanted=f"an integer from 1 to {LIMITS[key]}",
        )
    return value


def flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    """A boolean; `default` where the key is missing or null."""
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise CheckpointError(
            f"the configuration's '{key}' is not usable", got=repr(value)[:80], wanted="true or false"
        )
    return value


def token_ids(config: Mapping[str, Any], key: str, vocab_size: int) -> tuple[int, ...]:
    """Token ids, one or a list; () where the key is missing or null."""
    value = config.get(key)
    values = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v < vocab_size for v in values):
        raise CheckpointError(
            f"the configuration's '{key}' is outside the vocabulary",
            got=repr(value)[:80],
            wanted=f"0..{vocab_size - 1}",
        )
    return tuple(values)


def epsilon(config: Mapping[str, Any], key: str, default: float) -> float:
    """What a norm adds to the variance, 0 to 1; `default` where the key is missing."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 or math.isnan(value):
        raise CheckpointError(f"the configuration's '{key}' is not usable", got=repr(value)[:80], wanted="0 to 1")
    return float(value)


def activation(config: Mapping[str, Any], default: str) -> Literal["silu", "gelu_tanh"]:
    """`hidden_act`; `default` where the key is missing."""
    value = config.get("hidden_act", default)
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise CheckpointError(
            "the activation is not supported",
            got=repr(value)[:80],
            wanted=f"hidden_act one of {', '.join(ACTIVATIONS)}",
        )
    return ACTIVATIONS[value]


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """rope_parameters of transformers 5, or rope_theta and rope_scaling of 4, with the precedence of transformers."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise CheckpointError("the configuration's rope is not an object", got=repr(given)[:80])
    theta = config.get("rope_theta")
    return {"rope_theta": 10000.0 if theta is None else theta, **given}


def expand(table: Mapping[str, str], config: DecoderConfig) -> dict[str, str]:
    """Canonical name -> stored name of every tensor, from a table with {i} for the layer's number.

    Raises:
        CheckpointError: the configuration asks for a tensor that the table lacks.
    """
    wanted = [*config.matrix_shapes(), *config.vector_shapes()]
    layers = [{k.format(i=i): v.format(i=i) for k, v in table.items() if "{i}" in k} for i in range(config.layers)]
    names = {k: v for part in (*layers, table) for k, v in part.items()}
    missing = [w for w in wanted if w not in names]
    if missing:
        raise CheckpointError("this kind of file cannot hold what the configuration asks for", got=missing[:5])
    return {w: names[w] for w in wanted}


def refuse_unsupported(config: Mapping[str, Any], architecture: str) -> None:
    """Refuses weights that are quantized already, and models of another architecture than the language model's."""
    if config.get("quantization_config"):
        raise CheckpointError(
            "the checkpoint is already quantized",
            got=repr(config["quantization_config"])[:120],
            wanted="weights in fp32, fp16 or bf16, or a GGUF file",
            hint="pass the original checkpoint",
        )
    architectures = config.get("architectures") or [architecture]
    if architectures != [architecture]:
        raise CheckpointError(
            "the checkpoint is not a language model of this family", got=architectures, wanted=architecture
        )


def refuse_unknown(config: Mapping[str, Any], read: Iterable[str]) -> None:
    """Refuses every key that is neither read nor harmless, unless its value says that it is off.

    Raises:
        CheckpointError: names the keys, since to ignore one could mean a model that answers wrongly.
    """
    known = HARMLESS | set(read)
    unknown = {k: v for k, v in config.items() if k not in known and not _off(v)}
    if unknown:
        raise CheckpointError(
            "the configuration has options that this family does not know",
            got=", ".join(f"{k}={repr(v)[:60]}" for k, v in sorted(unknown.items())),
            wanted="only options that are carried out",
            hint="if an option has no influence on the result, remove it from config.json",
        )


def _off(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})
