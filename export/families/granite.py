"""Granite 3: a Llama with multipliers of the embedding, of what attention and MLP add, of scores and of logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout
from satchel.export.families.llama import GGUF_TENSORS, TENSORS, gguf_restore
from satchel.export.families.options import expand, flag, for_transformers, positive
from satchel.export.families.standard import standard_config

ARCHITECTURE = "GraniteForCausalLM"

READ = (
    "rms_norm_eps", "attention_bias", "mlp_bias", "embedding_multiplier", "residual_multiplier",
    "attention_multiplier", "logits_scaling",
)  # fmt: skip
"""Besides what all families read."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' GraniteConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    return replace(
        standard_config(config, ARCHITECTURE, READ, positions=2048),
        attention_bias=flag(config, "attention_bias"),
        mlp_bias=flag(config, "mlp_bias"),
        embedding_scale=positive(config, "embedding_multiplier", 1.0),
        residual_scale=positive(config, "residual_multiplier", 1.0),
        attention_scale=positive(config, "attention_multiplier", 1.0),
        logits_scale=1 / positive(config, "logits_scaling", 1.0),
    )


GRANITE = Family(
    name="granite",
    model_types=("granite",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(
        partial(expand, GGUF_TENSORS),
        gguf_restore,
        hugging_face=partial(for_transformers, model_type="granite", architecture=ARCHITECTURE),
    ),
    published=("ibm-granite/granite-3.3-2b-instruct", "ibm-granite/granite-3.3-8b-instruct"),
    always=("scores scaled by a number",),
    options=(
        "grouped queries", "tied head", "biases of q, k and v", "bias behind attention", "biases of the MLP",
        "scaled embedding", "scaled residuals", "scaled logits",
    ),
)  # fmt: skip
