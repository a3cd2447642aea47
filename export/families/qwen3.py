"""Qwen 3: a Llama that norms each head of queries and keys; where switched on, windows over the later layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import WINDOWS, expand, flag, for_transformers, windowed
from satchel.export.families.standard import standard_config

ARCHITECTURE = "Qwen3ForCausalLM"

READ = ("head_dim", "rms_norm_eps", "attention_bias", *WINDOWS)
"""Besides what all families read."""

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
    shared = standard_config(config, ARCHITECTURE, READ, positions=32768, kv_heads=32, head_dim=128)
    return windowed(replace(shared, qk_norm="head", attention_bias=flag(config, "attention_bias")), config)


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
    published=("Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "Qwen/Qwen3-4B", "Qwen/Qwen3-8B"),
    always=("norms of queries and keys",),
    options=(
        "grouped queries", "heads of a width of their own", "tied head", "biases of q, k and v",
        "bias behind attention", "window", "layers with and without a window", "rope yarn",
    ),
)  # fmt: skip
