"""Qwen 3: a Llama that norms each head of queries and keys; where switched on, windows over the later layers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Layer
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import (
    activation,
    alike,
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
    windowed_layers,
)
from satchel.export.rope import make_rope

ARCHITECTURE = "Qwen3ForCausalLM"

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings",
    "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "head_dim", "rms_norm_eps", "attention_bias", "use_sliding_window", "sliding_window", "max_window_layers",
    "layer_types",
)  # fmt: skip
"""Options that are carried out, or checked."""

TENSORS = LLAMA | {
    f"layers.{{i}}.self_attn.{part}_norm": f"model.layers.{{i}}.self_attn.{part}_norm.weight" for part in "qk"
}

GGUF_TENSORS = LLAMA_GGUF | {
    f"layers.{{i}}.self_attn.{part}_norm": f"blk.{{i}}.attn_{part}_norm.weight" for part in "qk"
}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' Qwen3Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)
    split, positions = heads(config, kv_default=32, dim_default=128), count(config, "max_position_embeddings", 32768)
    fields, rope = common(config), make_rope(rope_parameters(config), split.head_dim, positions)
    windows = windowed_layers(config, fields["layers"])
    size = fields["intermediate_size"]
    return DecoderConfig(
        **fields,
        **split._asdict(),
        family="qwen3",
        norm_eps=epsilon(config, "rms_norm_eps", 1e-6),
        activation=activation(config, "silu"),
        tied_embeddings=flag(config, "tie_word_embeddings"),
        max_position=positions,
        rope=rope,
        qk_norm="head",
        attention_bias=flag(config, "attention_bias"),
        window=windows[0],
        layer_options=alike([Layer(split.heads, split.kv_heads, size, rope, w) for w in windows]),
    )


QWEN3 = Family(
    name="qwen3",
    model_types=("qwen3",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(
        partial(expand, GGUF_TENSORS),
        hugging_face=partial(for_transformers, model_type="qwen3", architecture=ARCHITECTURE),
    ),
)
