"""StableLM 3B and StableLM 2: LayerNorm, a part of each head rotated.

StableLM 2 12B also norms each head of queries and keys by gains of its own, and has attention and MLP side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Joined, Place
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import expand, flag, for_transformers
from satchel.export.families.standard import standard_config

ARCHITECTURE = "StableLmForCausalLM"

READ = ("layer_norm_eps", "partial_rotary_factor", "use_qkv_bias", "qk_layernorm", "use_parallel_residual")
"""Besides what all families read."""

NORMS = ("layers.{i}.input_layernorm", "layers.{i}.post_attention_layernorm", "norm")
TENSORS = LLAMA | {f"{name}.bias": LLAMA[name].replace(".weight", ".bias") for name in NORMS}
GGUF_TENSORS = (
    LLAMA_GGUF
    | {f"{name}.bias": LLAMA_GGUF[name].replace(".weight", ".bias") for name in NORMS}
    | {f"layers.{{i}}.self_attn.{part}_proj.bias": f"blk.{{i}}.attn_{part}.bias" for part in "qkv"}
)


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' StableLmConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    eps = ("layer_norm_eps", 1e-5)
    return replace(
        standard_config(config, ARCHITECTURE, READ, positions=4096, eps=eps, rotated=0.25, kv_heads=32),
        norm="layer",
        parallel=flag(config, "use_parallel_residual"),
        qkv_bias=flag(config, "use_qkv_bias"),
        qk_norm="heads" if flag(config, "qk_layernorm") else "",
    )


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a Hugging Face checkpoint has each tensor; of queries and keys each head's gain is stored apart."""
    gains = _gains(config, lambda i, part, heads: tuple(
        f"model.layers.{i}.self_attn.{part}_layernorm.norms.{head}.weight" for head in range(heads)
    ))  # fmt: skip
    return expand(TENSORS, config, gains)


def gguf_tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a GGUF file has each tensor; gains of queries and keys are [heads, head_dim]."""
    return expand(GGUF_TENSORS, config, _gains(config, lambda i, part, heads: (f"blk.{i}.attn_{part}_norm.weight",)))


def _gains(config: DecoderConfig, names: Callable[[int, str, int], tuple[str, ...]]) -> dict[str, Joined]:
    return {
        f"layers.{i}.self_attn.{part}_norm": Joined(names(i, part, heads))
        for i in range(config.layers)
        for part, heads in (("q", config.heads), ("k", config.kv_heads))
    }


def hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """A GGUF file's configuration for transformers."""
    return for_transformers(config, "stablelm", ARCHITECTURE)


STABLELM = Family(
    name="stablelm",
    model_types=("stablelm",),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(gguf_tensor_names, hugging_face=hugging_face),
    published=("stabilityai/stablelm-3b-4e1t", "stabilityai/stablelm-2-1_6b-chat", "stabilityai/stablelm-2-12b-chat"),
    always=("LayerNorm",),
    options=(
        "grouped queries", "tied head", "biases of q, k and v", "norms of queries and keys", "partial rotary",
        "attention beside the MLP",
    ),
)  # fmt: skip
