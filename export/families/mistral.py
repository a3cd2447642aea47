"""Mistral 7B: a Llama whose first version has a window over every layer.

GGUF files of it say "llama", without the window, and are read as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family
from satchel.export.families.llama import TENSORS
from satchel.export.families.options import (
    activation,
    common,
    count,
    epsilon,
    expand,
    flag,
    heads,
    refuse_unknown,
    refuse_unsupported,
    rope_parameters,
    window,
)
from satchel.export.rope import make_rope

ARCHITECTURE = "MistralForCausalLM"

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings",
    "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id",
    "head_dim", "rms_norm_eps", "sliding_window",
)  # fmt: skip
"""Options that are carried out, or checked."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' MistralConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)
    split, positions = heads(config, kv_default=8), count(config, "max_position_embeddings", 131072)
    return DecoderConfig(
        **common(config),
        **split._asdict(),
        family="mistral",
        norm_eps=epsilon(config, "rms_norm_eps", 1e-6),
        activation=activation(config, "silu"),
        tied_embeddings=flag(config, "tie_word_embeddings"),
        max_position=positions,
        rope=make_rope(rope_parameters(config), split.head_dim, positions),
        window=window(config, 4096),
    )


MISTRAL = Family(
    name="mistral",
    model_types=("mistral",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
)
