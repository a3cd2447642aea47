"""The Phi-3 family: Phi-3-mini and -medium, Phi-3.5-mini, Phi-4 (model_type "phi3"), Phi-4-mini.

Special about it: q, k and v are stored as one tensor, gate and up as another; rotary embedding by LongRoPE where the
context is long (see Rope.at_context), of some channels only in Phi-4-mini; a window over every layer in Phi-3-mini-4k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Place
from satchel.export.families.options import (
    count,
    expand,
    for_transformers,
    fused_gate_up,
    fused_qkv,
    refuse_values,
    rope_parameters,
    window,
)
from satchel.export.families.standard import standard_config

ARCHITECTURE = "Phi3ForCausalLM"

READ = (
    "head_dim", "rms_norm_eps", "original_max_position_embeddings", "partial_rotary_factor", "sliding_window",
    "embd_pdrop", "resid_pdrop", "auto_map", "full_attn_mod", "lm_head_bias", "mlp_bias", "attention_bias",
    "interpolate_factor",
)  # fmt: skip
"""Besides what all families read. auto_map names code that came with the checkpoint, which is never run; Phi-4-mini has
those at the end of the list."""

TENSORS = {
    "layers.{i}.input_layernorm": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.self_attn.o_proj": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.post_attention_layernorm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.mlp.down_proj": "model.layers.{i}.mlp.down_proj.weight",
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}

GGUF_TENSORS = {
    "layers.{i}.input_layernorm": "blk.{i}.attn_norm.weight",
    "layers.{i}.self_attn.o_proj": "blk.{i}.attn_output.weight",
    "layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm.weight",
    "layers.{i}.mlp.down_proj": "blk.{i}.ffn_down.weight",
    "embed_tokens": "token_embd.weight",
    "norm": "output_norm.weight",
    "lm_head": "output.weight",
}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' Phi3Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_values(config, {"lm_head_bias": False, "mlp_bias": False, "attention_bias": False,
                           "full_attn_mod": 1, "interpolate_factor": 1})  # fmt: skip
    given = {**config, "rope_parameters": _rope(config), "rope_scaling": None}
    shared = standard_config(given, ARCHITECTURE, READ, positions=4096, eps=("rms_norm_eps", 1e-5), rotated=1.0)
    return replace(shared, window=window(config))


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Early files call LongRoPE "su" or "yarn"; the original context stands beside the rope and goes before its own."""
    given = rope_parameters(config)
    kind = given.pop("type", None)
    given.setdefault("rope_type", kind or "default")
    if given["rope_type"] in ("su", "yarn"):
        given["rope_type"] = "longrope"
    if given["rope_type"] == "longrope":
        given["original_max_position_embeddings"] = count(config, "original_max_position_embeddings", 4096)
    return given


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a Hugging Face checkpoint has each tensor."""
    fused = fused_qkv(config, "model.layers.{i}.self_attn.qkv_proj")
    return expand(TENSORS, config, {**fused, **fused_gate_up(config, "model.layers.{i}.mlp.gate_up_proj")})


def gguf_tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a GGUF file has each tensor."""
    fused = fused_qkv(config, "blk.{i}.attn_qkv")
    return expand(GGUF_TENSORS, config, {**fused, **fused_gate_up(config, "blk.{i}.ffn_up")})


def hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """A GGUF file's configuration for transformers, whose own reading of such files leaves LongRoPE out."""
    return for_transformers(config, "phi3", ARCHITECTURE)


PHI3 = Family(
    name="phi3",
    model_types=("phi3",),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(gguf_tensor_names, hugging_face=hugging_face),
    published=(
        "microsoft/Phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-128k-instruct", "microsoft/Phi-3-medium-4k-instruct",
        "microsoft/Phi-3-medium-128k-instruct", "microsoft/Phi-3.5-mini-instruct", "microsoft/phi-4",
        "microsoft/Phi-4-mini-instruct",
    ),
    options=("grouped queries", "tied head", "partial rotary", "rope longrope", "window"),
)  # fmt: skip
