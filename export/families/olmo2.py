"""OLMo 2: norms behind attention and MLP instead of before them, and one over all heads of queries, and of keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import expand, flag, for_transformers
from satchel.export.families.standard import standard_config

ARCHITECTURE = "Olmo2ForCausalLM"

READ = ("head_dim", "rms_norm_eps", "attention_bias")
"""Besides what all families read."""

TENSORS = LLAMA | {
    "layers.{i}.self_attn.q_norm": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.self_attn.k_norm": "model.layers.{i}.self_attn.k_norm.weight",
    "layers.{i}.attention_output_layernorm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.mlp_output_layernorm": "model.layers.{i}.post_feedforward_layernorm.weight",
}
GGUF_TENSORS = LLAMA_GGUF | {
    "layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm.weight",
    "layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm.weight",
    "layers.{i}.attention_output_layernorm": "blk.{i}.post_attention_norm.weight",
    "layers.{i}.mlp_output_layernorm": "blk.{i}.post_ffw_norm.weight",
}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' Olmo2Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    return replace(
        standard_config(config, ARCHITECTURE, READ, positions=2048, eps=("rms_norm_eps", 1e-5)),
        attention_bias=flag(config, "attention_bias"),
        qk_norm="width",
        pre_norm=False,
        post_norm=True,
    )


OLMO2 = Family(
    name="olmo2",
    model_types=("olmo2",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(
        partial(expand, GGUF_TENSORS),
        hugging_face=partial(for_transformers, model_type="olmo2", architecture=ARCHITECTURE),
    ),
    published=("allenai/OLMo-2-0425-1B-Instruct", "allenai/OLMo-2-1124-7B-Instruct"),
    always=("norms of queries and keys", "norms behind attention and MLP", "no norms before attention and MLP"),
    options=("grouped queries", "tied head", "biases of q, k and v", "bias behind attention"),
)  # fmt: skip
