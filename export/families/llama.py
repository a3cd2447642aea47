"""The Llama family: Llama 1 to 3, SmolLM and SmolLM2, TinyLlama, and others that say model_type "llama".

Special about it: llama.cpp's conversion reorders the rows of q_proj and k_proj, since it rotates neighbouring channels
where the original rotates channels half a head apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Place
from satchel.export.families.options import expand, flag
from satchel.export.families.standard import standard_config
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "LlamaForCausalLM"

READ = (
    "head_dim", "rms_norm_eps", "attention_bias", "mlp_bias", "is_llama_config", "rope_interleaved",
)  # fmt: skip
"""Besides what all families read; is_llama_config and rope_interleaved are SmolLM2's."""

TENSORS = {
    "layers.{i}.input_layernorm": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.self_attn.q_proj": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.self_attn.k_proj": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.self_attn.v_proj": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.self_attn.o_proj": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.self_attn.q_proj.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.{i}.self_attn.k_proj.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.{i}.self_attn.v_proj.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.{i}.self_attn.o_proj.bias": "model.layers.{i}.self_attn.o_proj.bias",
    "layers.{i}.post_attention_layernorm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.mlp.gate_proj": "model.layers.{i}.mlp.gate_proj.weight",
    "layers.{i}.mlp.up_proj": "model.layers.{i}.mlp.up_proj.weight",
    "layers.{i}.mlp.down_proj": "model.layers.{i}.mlp.down_proj.weight",
    "layers.{i}.mlp.gate_proj.bias": "model.layers.{i}.mlp.gate_proj.bias",
    "layers.{i}.mlp.up_proj.bias": "model.layers.{i}.mlp.up_proj.bias",
    "layers.{i}.mlp.down_proj.bias": "model.layers.{i}.mlp.down_proj.bias",
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}

GGUF_TENSORS = {
    "layers.{i}.input_layernorm": "blk.{i}.attn_norm.weight",
    "layers.{i}.self_attn.q_proj": "blk.{i}.attn_q.weight",
    "layers.{i}.self_attn.k_proj": "blk.{i}.attn_k.weight",
    "layers.{i}.self_attn.v_proj": "blk.{i}.attn_v.weight",
    "layers.{i}.self_attn.o_proj": "blk.{i}.attn_output.weight",
    "layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm.weight",
    "layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate.weight",
    "layers.{i}.mlp.up_proj": "blk.{i}.ffn_up.weight",
    "layers.{i}.mlp.down_proj": "blk.{i}.ffn_down.weight",
    "embed_tokens": "token_embd.weight",
    "norm": "output_norm.weight",
    "lm_head": "output.weight",
}
"""No biases: GGUF files of this architecture that have them are refused as holding unexpected tensors, since the
reference (transformers) would leave them out."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' LlamaConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    if config.get("rope_interleaved"):
        raise CheckpointError("interleaved rotary embeddings are not supported", got="rope_interleaved=true")
    return replace(
        standard_config(config, ARCHITECTURE, READ, positions=2048),
        attention_bias=flag(config, "attention_bias"),
        mlp_bias=flag(config, "mlp_bias"),
    )


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Canonical name -> name in a Hugging Face checkpoint."""
    return expand(TENSORS, config)


def gguf_tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Canonical name -> name in a GGUF file."""
    return expand(GGUF_TENSORS, config)


def gguf_restore(config: DecoderConfig, name: str, values: np.ndarray) -> np.ndarray:
    """Undoes llama.cpp's order of rows in q_proj and k_proj.

    A head's rows are stored as 0, d/2, 1, d/2 + 1, ...: channel j beside the one it is rotated with, d being head_dim.
    """
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.rpartition(".")[2])
    if heads is None:
        return values
    pairs = values.reshape(heads, config.head_dim // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


LLAMA = Family(
    name="llama",
    model_types=("llama",),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(gguf_tensor_names, gguf_restore),
    published=(
        "meta-llama/Llama-2-7b-chat-hf", "TinyLlama/TinyLlama-1.1B-Chat-v1.0", "meta-llama/Llama-3.1-8B-Instruct",
        "HuggingFaceTB/SmolLM-135M-Instruct", "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    ),
    options=(
        "grouped queries", "heads of a width of their own", "tied head", "biases of q, k and v",
        "bias behind attention", "biases of the MLP", "rope linear", "rope llama3", "rope yarn",
    ),
)  # fmt: skip
