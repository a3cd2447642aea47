"""SmolLM3: a Llama of which every fourth layer, by default, does not rotate."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Layer
from satchel.export.families.llama import GGUF_TENSORS, TENSORS, gguf_restore
from satchel.export.families.options import (
    activation,
    common,
    count,
    epsilon,
    expand,
    flag,
    for_transformers,
    heads,
    layer_types,
    refuse_unknown,
    refuse_unsupported,
    rope_parameters,
    window,
)
from satchel.export.rope import make_rope
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "SmolLM3ForCausalLM"

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings",
    "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "rms_norm_eps", "attention_bias", "mlp_bias", "no_rope_layers", "no_rope_layer_interval", "use_sliding_window",
    "sliding_window", "layer_types", "max_window_layers",
)  # fmt: skip
"""Options that are carried out, or checked."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' SmolLM3Config.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)
    split, positions = heads(config, kv_default=4), count(config, "max_position_embeddings", 32768)
    fields, rope = common(config), make_rope(rope_parameters(config, 2000000.0), split.head_dim, positions)
    rotated = _rotated(config, fields["layers"])
    size = window(config) if flag(config, "use_sliding_window") else 0
    sliding = layer_types(config, [bool(size) and not turns for turns in rotated])
    layers = [
        Layer(split.heads, split.kv_heads, fields["intermediate_size"], rope if turns else None, size if slides else 0)
        for turns, slides in zip(rotated, sliding, strict=True)
    ]
    return DecoderConfig(
        **fields,
        **split._asdict(),
        family="smollm3",
        norm_eps=epsilon(config, "rms_norm_eps", 1e-6),
        activation=activation(config, "silu"),
        tied_embeddings=flag(config, "tie_word_embeddings", True),
        max_position=positions,
        rope=rope,
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
)
