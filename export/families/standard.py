"""What most families have in common: the keys that a configuration of theirs has, and a decoder made from those.

A family calls `standard_config` with its defaults and adds what is special about it with dataclasses.replace.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from satchel.export.families.base import DecoderConfig
from satchel.export.families.options import (
    activation,
    common,
    count,
    epsilon,
    flag,
    heads,
    refuse_unknown,
    refuse_unsupported,
    rope_parameters,
)
from satchel.export.rope import make_rope, partial_rope

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings", "rope_theta",
    "rope_scaling", "rope_parameters", "tie_word_embeddings", "bos_token_id", "eos_token_id",
)  # fmt: skip
"""Keys that every family reads."""


def standard_config(
    config: Mapping[str, Any],
    architecture: str,
    read: Iterable[str],
    *,
    positions: int,
    eps: tuple[str, float] = ("rms_norm_eps", 1e-6),
    act: str = "silu",
    theta: float = 10000.0,
    rotated: float | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    tied: bool = False,
) -> DecoderConfig:
    """A decoder of RMSNorms before attention and a gated MLP, rotary embedding, without biases.

    Args:
        config: as Hugging Face has it.
        architecture: the class that the family's language model has in `architectures`.
        read: keys that the family reads besides READ; any other that may change what is computed is refused.
        positions, act, theta, tied: stand in for a missing max_position_embeddings, hidden_act, rope_theta and
            tie_word_embeddings.
        eps: the key of the norms' epsilon, and what stands in for it.
        rotated: stands in for a missing partial_rotary_factor; None for families that rotate whole heads.
        kv_heads, head_dim: stand in for a missing num_key_value_heads (as many as queries have, if None) and head_dim
            (hidden_size / heads).

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, architecture)
    refuse_unknown(config, (*READ, *read))
    split = heads(config, kv_default=kv_heads, dim_default=head_dim)
    longest, rope = count(config, "max_position_embeddings", positions), rope_parameters(config, theta)
    if rotated is not None:
        share = config.get("partial_rotary_factor")
        rope = {"partial_rotary_factor": rotated if share is None else share, **rope}
    return DecoderConfig(
        **common(config),
        **split._asdict(),
        family=str(config["model_type"]),
        norm_eps=epsilon(config, *eps),
        activation=activation(config, act),
        tied_embeddings=flag(config, "tie_word_embeddings", tied),
        max_position=longest,
        rope=(make_rope if rotated is None else partial_rope)(rope, split.head_dim, longest),
    )
