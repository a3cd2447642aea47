"""SmolLM3: a Llama of which every fourth layer, by default, does not rotate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout
from satchel.export.families.llama import GGUF_TENSORS, TENSORS, gguf_restore
from satchel.export.families.options import count, expand, flag, for_transformers, layer_types, window
from satchel.export.families.standard import standard_config
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "SmolLM3ForCausalLM"

READ = (
    "rms_norm_eps", "attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval", "use_sliding_window",
    "sliding_window", "layer_types", "max_window_layers",
)  # fmt: skip
"""Besides what all families read."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' SmolLM3Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    shared = standard_config(config, ARCHITECTURE, READ, positions=32768, theta=2e6, kv_heads=4, tied=True)
    rotated = _rotated(config, shared.layers)
    size = window(config) if flag(config, "use_sliding_window") else 0
    sliding = layer_types(config, [bool(size) and not turns for turns in rotated])
    layers = [
        replace(layer, rope=layer.rope if turns else None, window=size if slides else 0)
        for layer, turns, slides in zip(shared.each_layer(), rotated, sliding, strict=True)
    ]
    return replace(
        shared,
        attention_bias=flag(config, "attention_bias"),
        mlp_bias=flag(config, "mlp_bias"),
        layer_options=tuple(layers),
    )


def _rotated(config: Mapping[str, Any], layers: int) -> list[bool]:
    """`no_rope_layers`, which says 1 for a layer that does rotate."""
    given = config.get("no_rope_layers")
    if given is None:
        step = count(config, "no_rope_layer_interval", 4)
        return [(i + 1) % step != 0 for i in range(layers)]
    if not isinstance(given, list) or len(given) < layers or any(v not in (0, 1) for v in given):
        wanted = f"a list of 0 and 1, one for each of {layers} layers"
        raise CheckpointError("the configuration's 'no_rope_layers' is not usable", got=repr(given)[:80], wanted=wanted)
    return [bool(v) for v in given[:layers]]


SMOLLM3 = Family(
    name="smollm3",
    model_types=("smollm3",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(
        partial(expand, GGUF_TENSORS),
        gguf_restore,
        hugging_face=partial(for_transformers, model_type="smollm3", architecture=ARCHITECTURE),
    ),
    published=("HuggingFaceTB/SmolLM3-3B",),
    options=(
        "grouped queries", "tied head", "biases of q, k and v", "bias behind attention", "biases of the MLP",
        "layers without rotary", "window", "layers with and without a window", "rope yarn",
    ),
)  # fmt: skip
