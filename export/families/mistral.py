"""Mistral 7B: a Llama whose first version has a window over every layer.

GGUF files of it say "llama", without the window, and are read as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from satchel.export.families.base import DecoderConfig, Family
from satchel.export.families.llama import TENSORS
from satchel.export.families.options import expand, window
from satchel.export.families.standard import standard_config

ARCHITECTURE = "MistralForCausalLM"

READ = ("head_dim", "rms_norm_eps", "sliding_window")
"""Besides what all families read."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' MistralConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    shared = standard_config(config, ARCHITECTURE, READ, positions=131072, kv_heads=8)
    return replace(shared, window=window(config, 4096))


MISTRAL = Family(
    name="mistral",
    model_types=("mistral",),
    configure=configure,
    tensor_names=partial(expand, TENSORS),
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf_as="llama",
    published=("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.3"),
    options=("grouped queries", "heads of a width of their own", "tied head", "window"),
)  # fmt: skip
