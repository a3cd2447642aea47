"""OLMo 2: norms behind attention and MLP instead of before them, and one over all heads of queries, and of keys."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import (
    activation,
    common,
    count,
    epsilon,
    expand,
    flag,
    for_transformers,
    heads,
    refuse_unknown,
    refuse_unsupported,
    rope_parameters,
)
from satchel.export.rope import make_rope

ARCHITECTURE = "Olmo2ForCausalLM"

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings",
    "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "head_dim", "rms_norm_eps", "attention_bias",
)  # fmt: skip
"""Options that are carried out, or checked."""

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
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)
    split, positions = heads(config), count(config, "max_position_embeddings", 2048)
    return DecoderConfig(
        **common(config),
        **split._asdict(),
        family="olmo2",
        norm_eps=epsilon(config, "rms_norm_eps", 1e-5),
        activation=activation(config, "silu"),
        tied_embeddings=flag(config, "tie_word_embeddings"),
        max_position=positions,
        rope=make_rope(rope_parameters(config), split.head_dim, positions),
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
)
