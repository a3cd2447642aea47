"""Metadata of a GGUF file -> a configuration as Hugging Face writes it.

What has no counterpart there keeps its GGUF key, so that a family refuses it by name. Some architectures leave to
llama.cpp what Hugging Face states; ARCHITECTURES says what that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from satchel.export.checkpoint.gguf_header import GgufHeader
from satchel.runtime.errors import CheckpointError

ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the inverse frequencies: how llama.cpp stores the scaling of Llama 3.1 and later."""

LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
"""The same of Phi-3's LongRoPE: for contexts beyond the original one, and up to it."""
FACTORS = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)

# Metadata key without the architecture -> key of a Hugging Face configuration.
CONFIG_KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "attention.sliding_window": "sliding_window",
    "attention.sliding_window_pattern": "sliding_window_pattern",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.scale": "attention_multiplier",
    "embedding_scale": "embedding_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_scale": "logits_scaling",
    "use_parallel_residual": "use_parallel_residual",
    "vocab_size": "vocab_size",
}
ROPE_KEYS = (
    "rope.freq_base", "rope.dimension_count", "attention.key_length", "attention.value_length", "rope.freq_base_swa",
)  # fmt: skip
SCALING_KEYS = tuple(
    f"rope.scaling.{k}" for k in ("type", "factor", "finetuned", "original_context_length", "attn_factor")
)
TOLD_BY_TENSORS = {
    "openelm": {"normalize_qk_projections": "blk.0.attn_q_norm.weight"},
    "stablelm": {"use_qkv_bias": "blk.0.attn_q.bias", "qk_layernorm": "blk.0.attn_q_norm.weight"},
}
"""Architecture -> options that its files do not state -> the tensor that says that they are on."""


def make_config(header: GgufHeader, factors: Mapping[str, list[float]]) -> dict[str, Any]:
    """Metadata -> a configuration as Hugging Face writes it.

    Args:
        header: of the file.
        factors: the file's divisors of the inverse frequencies, as far as it has them, by FACTORS.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise CheckpointError("the GGUF file does not say its architecture", wanted="general.architecture")
    prefix = f"{architecture}."
    own = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    config = {CONFIG_KEYS[k]: v for k, v in own.items() if k in CONFIG_KEYS}
    config |= {prefix + k: v for k, v in own.items() if k not in (*CONFIG_KEYS, *ROPE_KEYS, *SCALING_KEYS)}
    config = {k: v for k, v in config.items() if k != "sliding_window" or v != 0}
    config |= {k: name in header.tensors for k, name in TOLD_BY_TENSORS.get(architecture, {}).items()}
    config |= _tokens(metadata) | _rope(own, factors)
    tokens = metadata.get("tokenizer.ggml.tokens")
    if "vocab_size" not in config and isinstance(tokens, list):
        config["vocab_size"] = len(tokens)
    config |= {"model_type": architecture, "tie_word_embeddings": "output.weight" not in header.tensors}
    amend = ARCHITECTURES.get(architecture)
    return amend(config, own) if amend else config


def _tokens(metadata: Mapping[str, Any]) -> dict[str, Any]:
    ids = {"bos_token_id": metadata.get("tokenizer.ggml.bos_token_id")}
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    return ids | {"eos_token_id": list(dict.fromkeys(e for e in ends if e is not None))}


def _rope(own: Mapping[str, Any], factors: Mapping[str, list[float]]) -> dict[str, Any]:
    """head_dim (where it is stated) and rope_parameters; a head is as wide as llama.cpp takes it to be."""
    rotated, key, value = (_whole(own, k) for k in ROPE_KEYS[1:4])
    head_dim = key or _share(own)
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": own.get("rope.freq_base", 10000.0)}
    kind = own.get("rope.scaling.type", "none")
    if kind != "none":
        parameters |= {"rope_type": kind, "factor": own.get("rope.scaling.factor")}
    if ROPE_FACTORS in factors:
        name = "gguf_factors" if kind == "none" else f"{kind} with factors"
        parameters |= {"rope_type": name, "factors": factors[ROPE_FACTORS]}
    original = {}
    if kind == "yarn":
        parameters["original_max_position_embeddings"] = own.get("rope.scaling.original_context_length")
    if LONG_FACTORS in factors or SHORT_FACTORS in factors:
        parameters |= {"rope_type": "longrope", "attention_factor": own.get("rope.scaling.attn_factor")}
        parameters |= {"long_factor": factors.get(LONG_FACTORS), "short_factor": factors.get(SHORT_FACTORS)}
        original["original_max_position_embeddings"] = own.get("rope.scaling.original_context_length")
    if head_dim:
        parameters["partial_rotary_factor"] = (rotated or head_dim) / head_dim
    if value and value != head_dim:
        parameters["value_length"] = value
    return {"rope_parameters": parameters} | ({"head_dim": key} if key else {}) | original


def _share(own: Mapping[str, Any]) -> int | None:
    """A head's share of the width."""
    hidden, heads = (_whole(own, k) for k in ("embedding_length", "attention.head_count"))
    return hidden // heads if hidden and heads else None


def _whole(own: Mapping[str, Any], key: str) -> int | None:
    value = own.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise CheckpointError(
            f"the GGUF file's '{key}' is not usable", got=repr(value)[:80], wanted="an integer above 0"
        )
    return value


def _gemma2(config: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The largest models scale scores by their share of the width; llama.cpp knows them by their layers."""
    largest = config.get("num_hidden_layers") in LARGEST_GEMMAS
    if largest and config.get("hidden_size") and config.get("num_attention_heads"):
        scalar = config["hidden_size"] / config["num_attention_heads"]
    else:
        scalar = config.get("head_dim")
    return {**config, "query_pre_attn_scalar": scalar}


def _gemma3(config: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Layers with a window are not scaled, and have a base of their own."""
    local = {"rope_type": "default", "rope_theta": own.get("rope.freq_base_swa", 10000.0)}
    whole = {k: v for k, v in config["rope_parameters"].items() if k != "partial_rotary_factor" or v != 1}
    ropes = {"full_attention": whole, "sliding_attention": local}
    return {"sliding_window_pattern": 6, **_gemma2(config, own), "rope_parameters": ropes, "model_type": "gemma3_text"}


def _openelm(config: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of each layer, in the words of OpenELM's own configuration."""
    widths, hidden = config.pop("intermediate_size", None), config.pop("hidden_size", None)
    rope = config.pop("rope_parameters")
    if rope.get("rope_type") != "default" or rope.get("partial_rotary_factor", 1) != 1:
        raise CheckpointError("an OpenELM whose rope is scaled is not supported", got=rope)
    if isinstance(widths, list) and isinstance(hidden, int) and all(isinstance(w, int) for w in widths):
        config["ffn_multipliers"] = [width / max(hidden, 1) for width in widths]
    renamed = {
        "num_transformer_layers": config.pop("num_hidden_layers", None), "model_dim": hidden, "ffn_dim_divisor": 1,
        "num_query_heads": config.pop("num_attention_heads", None), "rope_freq_constant": rope["rope_theta"],
        "num_kv_heads": config.pop("num_key_value_heads", None),
        "max_context_length": config.pop("max_position_embeddings", None),
        "share_input_output_layers": config.pop("tie_word_embeddings"),
    }  # fmt: skip
    if abs(config.pop("rms_norm_eps", 1e-6) - 1e-6) > 1e-9:
        raise CheckpointError("an OpenELM with another epsilon than 1e-6 is not supported", got="rms_norm_eps")
    return {**config, **renamed}


LARGEST_GEMMAS = (46, 62)
"""Layers of Gemma 2 27B and Gemma 3 27B."""
Amend = Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]]
ARCHITECTURES: dict[str, Amend] = {"gemma2": _gemma2, "gemma3": _gemma3, "openelm": _openelm}
"""Architecture -> (configuration so far, its own metadata) -> the configuration."""
