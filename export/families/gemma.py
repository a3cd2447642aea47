"""The Gemma family: Gemma 1, 2 and 3 (text).

Special about it: the embedding is scaled by sqrt(hidden_size), gains of norms are stored less 1, GELU behind the gate.
Gemma 2 and 3 have norms before and behind attention and MLP, a scale of scores that is an option, and layers with a
window between those without; Gemma 2 caps scores and logits, Gemma 3 norms queries and keys instead, and turns the
layers with a window by other frequencies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Layer, Place
from satchel.export.families.llama import GGUF_TENSORS as LLAMA_GGUF
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import alike, count, expand, flag, for_transformers, layer_types, positive, window
from satchel.export.families.standard import standard_config
from satchel.export.rope import make_rope
from satchel.runtime.errors import CheckpointError

ARCHITECTURES = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3_text": "Gemma3ForCausalLM"}

READ = ("head_dim", "rms_norm_eps", "hidden_activation", "attention_bias", "cache_implementation")
"""Of all three, besides what all families read."""
READ_2 = (*READ, "query_pre_attn_scalar", "sliding_window", "layer_types", "final_logit_softcapping",
          "attn_logit_softcapping", "sliding_window_size")  # fmt: skip
"""Of Gemma 2."""
READ_3 = (*READ_2, "rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern")
"""Of Gemma 3."""

TENSORS = LLAMA
TENSORS_2 = LLAMA | {
    "layers.{i}.self_attn.q_norm": "model.layers.{i}.self_attn.q_norm.weight",
    "layers.{i}.self_attn.k_norm": "model.layers.{i}.self_attn.k_norm.weight",
    "layers.{i}.attention_output_layernorm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.post_attention_layernorm": "model.layers.{i}.pre_feedforward_layernorm.weight",
    "layers.{i}.mlp_output_layernorm": "model.layers.{i}.post_feedforward_layernorm.weight",
}
"""Of Gemma 2, and of Gemma 3, which has the first two."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' three configurations.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    return {"gemma": _gemma, "gemma2": _gemma2, "gemma3_text": _gemma3}[str(config.get("model_type"))](config)


def _shared(config: Mapping[str, Any], read: Iterable[str], kv_heads: int, positions: int) -> DecoderConfig:
    """What all three have, with one rope for every layer."""
    named = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    # "gelu" is how the first releases say what they mean to be its tanh form.
    act = {"hidden_act": "gelu_pytorch_tanh" if named == "gelu" else named}
    architecture = ARCHITECTURES[str(config["model_type"])]
    found = standard_config(
        {**config, **act}, architecture, read, positions=positions, kv_heads=kv_heads, head_dim=256, tied=True
    )
    return replace(found, attention_bias=flag(config, "attention_bias"), embedding_scale=found.hidden_size**0.5)


def _gemma(config: Mapping[str, Any]) -> DecoderConfig:
    return _shared(config, READ, 16, 8192)


def _gemma2(config: Mapping[str, Any]) -> DecoderConfig:
    shared = _shared(config, READ_2, 4, 8192)
    sliding = layer_types(config, [i % 2 == 0 for i in range(shared.layers)])
    size = window(config, 4096)
    layers = [_layer(shared, size if slides else 0) for slides in sliding]
    return replace(
        shared,
        window=layers[0].window,
        layer_options=alike(layers),
        post_norm=True,
        attention_scale=positive(config, "query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=_cap(config, "attn_logit_softcapping", 50.0),
        logits_softcap=_cap(config, "final_logit_softcapping", 30.0),
    )


def _gemma3(config: Mapping[str, Any]) -> DecoderConfig:
    whole, local = _ropes(config)
    given = {**config, "rope_parameters": whole, "rope_scaling": None, "rope_theta": None}
    shared = _shared(given, READ_3, 4, 131072)
    if _cap(config, "attn_logit_softcapping", 0.0):
        raise CheckpointError("a Gemma 3 with capped scores is not supported", got="attn_logit_softcapping")
    step = count(config, "sliding_window_pattern", 6)
    sliding = layer_types(config, [(i + 1) % step != 0 for i in range(shared.layers)])
    size, other = window(config, 4096), make_rope(local, shared.head_dim, shared.max_position)
    layers = [replace(_layer(shared, size), rope=other) if slides else _layer(shared, 0) for slides in sliding]
    return replace(
        shared,
        layer_options=tuple(layers),
        post_norm=True,
        qk_norm="head",
        attention_scale=positive(config, "query_pre_attn_scalar", 256) ** -0.5,
        logits_softcap=_cap(config, "final_logit_softcapping", 0.0),
    )


def _ropes(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rope of layers without a window, which alone may be scaled, and of those with one."""
    given = config.get("rope_parameters") or {}
    whole = {"rope_theta": config.get("rope_theta") or 1e6, **(config.get("rope_scaling") or {})}
    local = {"rope_theta": config.get("rope_local_base_freq") or 1e4}
    if not isinstance(given, Mapping) or not set(given) <= {"full_attention", "sliding_attention"}:
        raise CheckpointError("a Gemma 3's rope is said for both kinds of layers", got=repr(given)[:120])
    return whole | dict(given.get("full_attention") or {}), local | dict(given.get("sliding_attention") or {})


def _layer(config: DecoderConfig, size: int) -> Layer:
    return Layer(config.heads, config.kv_heads, config.intermediate_size, config.rope, size)


def _cap(config: Mapping[str, Any], key: str, default: float) -> float:
    """0 for null."""
    return 0.0 if config.get(key, default or None) is None else positive(config, key, default)


GGUF_TENSORS = LLAMA_GGUF | {
    "layers.{i}.self_attn.q_norm": "blk.{i}.attn_q_norm.weight",
    "layers.{i}.self_attn.k_norm": "blk.{i}.attn_k_norm.weight",
    "layers.{i}.attention_output_layernorm": "blk.{i}.post_attention_norm.weight",
    "layers.{i}.mlp_output_layernorm": "blk.{i}.post_ffw_norm.weight",
}
"""Gains are stored whole there, and rows of q and k as in the original."""


def hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """A GGUF file's configuration for transformers."""
    kind = str(config["model_type"])
    return for_transformers(config, kind, ARCHITECTURES[kind])


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a Hugging Face checkpoint has each tensor."""
    return expand(TENSORS_2 if config.post_norm else TENSORS, config)


GEMMA = Family(
    name="gemma",
    model_types=tuple(ARCHITECTURES),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    norm_offset=1.0,
    gguf=GgufLayout(partial(expand, GGUF_TENSORS), hugging_face=hugging_face),
    published=(
        "google/gemma-2b", "google/gemma-7b", "google/gemma-2-2b-it", "google/gemma-2-9b-it",
        "google/gemma-3-270m-it", "google/gemma-3-1b-it",
    ),
    always=("scaled embedding",),
    options=(
        "grouped queries", "heads of a width of their own", "tied head", "biases of q, k and v",
        "bias behind attention", "norms of queries and keys", "norms behind attention and MLP", "window",
        "layers with and without a window", "ropes that differ by layer", "rope linear", "scores scaled by a number",
        "capped scores", "capped logits",
    ),
)  # fmt: skip
