"""StarCoder2: LayerNorm, biases everywhere but at the head, an MLP without a gate, a window over every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family
from satchel.export.families.options import expand, flag, refuse_values, window
from satchel.export.families.standard import standard_config

ARCHITECTURE = "Starcoder2ForCausalLM"

READ = (
    "norm_epsilon", "use_bias", "sliding_window", "embedding_dropout", "residual_dropout", "mlp_type", "norm_type",
    "activation_function", "layer_norm_epsilon", "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32",
    "scale_attn_weights",
)  # fmt: skip
"""Besides what all families read. Those from mlp_type on are of the code that the model was trained with."""

NAMES = {
    "layers.{i}.input_layernorm": "model.layers.{i}.input_layernorm",
    "layers.{i}.self_attn.q_proj": "model.layers.{i}.self_attn.q_proj",
    "layers.{i}.self_attn.k_proj": "model.layers.{i}.self_attn.k_proj",
    "layers.{i}.self_attn.v_proj": "model.layers.{i}.self_attn.v_proj",
    "layers.{i}.self_attn.o_proj": "model.layers.{i}.self_attn.o_proj",
    "layers.{i}.post_attention_layernorm": "model.layers.{i}.post_attention_layernorm",
    "layers.{i}.mlp.up_proj": "model.layers.{i}.mlp.c_fc",
    "layers.{i}.mlp.down_proj": "model.layers.{i}.mlp.c_proj",
    "norm": "model.norm",
    "embed_tokens": "model.embed_tokens",
    "lm_head": "lm_head",
}
TENSORS = {k: f"{v}.weight" for k, v in NAMES.items()} | {f"{k}.bias": f"{v}.bias" for k, v in NAMES.items()}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' Starcoder2Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_values(config, {"mlp_type": "default", "norm_type": "layer_norm", "scale_attn_weights": True})
    eps, act = ("norm_epsilon", 1e-5), "gelu_pytorch_tanh"
    biased = flag(config, "use_bias", True)
    return replace(
        standard_config(config, ARCHITECTURE, READ, positions=4096, eps=eps, act=act, kv_heads=2, tied=True),
        norm="layer",
        gated=False,
        attention_bias=biased,
        mlp_bias=biased,
        window=window(config),
    )


STARCODER2 = Family(
    name="starcoder2",
    model_types=("starcoder2",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    tied_head="lm_head.weight",
    published=("bigcode/starcoder2-3b", "bigcode/starcoder2-7b"),
    always=("LayerNorm", "MLP without a gate"),
    options=(
        "grouped queries", "tied head", "biases of q, k and v", "bias behind attention", "biases of the MLP", "window",
    ),
)  # fmt: skip
