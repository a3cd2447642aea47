"""Qwen 2 and 2.5: a Llama with biases of q, k and v, and, where it is switched on, windows over the later layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS
from satchel.export.families.options import WINDOWS, expand, for_transformers, windowed
from satchel.export.families.standard import standard_config

ARCHITECTURE = "Qwen2ForCausalLM"

READ = ("rms_norm_eps", *WINDOWS)
"""Besides what all families read."""

GGUF_TENSORS = LLAMA_GGUF | {
    f"layers.{{i}}.self_attn.{part}_proj.bias": f"blk.{{i}}.attn_{part}.bias" for part in "qkv"
}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' Qwen2Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    shared = standard_config(config, ARCHITECTURE, READ, positions=32768, kv_heads=32)
    return windowed(replace(shared, qkv_bias=True), config)


QWEN2 = Family(
    name="qwen2",
    model_types=("qwen2",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(
        partial(expand, GGUF_TENSORS),
        hugging_face=partial(for_transformers, model_type="qwen2", architecture=ARCHITECTURE),
    ),
    published=(
        "Qwen/Qwen2-0.5B-Instruct", "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct",
        "Qwen/Qwen2.5-3B-Instruct", "Qwen/Qwen2.5-7B-Instruct",
    ),
    always=("biases of q, k and v",),
    options=("grouped queries", "tied head", "window", "layers with and without a window", "rope yarn"),
)  # fmt: skip
