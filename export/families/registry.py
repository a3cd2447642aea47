"""The families of models that Satchel can export: one file each, and a line in FAMILIES or MULTIMODAL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satchel.export.checkpoint import Checkpoint
from satchel.export.families.base import DecoderConfig, Family
from satchel.export.families.gemma import GEMMA
from satchel.export.families.granite import GRANITE
from satchel.export.families.llama import LLAMA
from satchel.export.families.llava import LLAVA
from satchel.export.families.mistral import MISTRAL
from satchel.export.families.moondream import MOONDREAM
from satchel.export.families.multimodal import MultimodalFamily
from satchel.export.families.olmo2 import OLMO2
from satchel.export.families.openelm import OPENELM
from satchel.export.families.phi import PHI
from satchel.export.families.phi3 import PHI3
from satchel.export.families.phi3small import PHI3SMALL
from satchel.export.families.qwen2 import QWEN2
from satchel.export.families.qwen3 import QWEN3
from satchel.export.families.smollm3 import SMOLLM3
from satchel.export.families.smolvlm import IDEFICS, SMOLVLM
from satchel.export.families.stablelm import STABLELM
from satchel.export.families.starcoder2 import STARCODER2
from satchel.export.families.tensors import CanonicalTensors
from satchel.runtime.errors import CheckpointError

FAMILIES: dict[str, Family] = {
    "gemma": GEMMA,
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "granite": GRANITE,
    "llama": LLAMA,
    "mistral": MISTRAL,
    "olmo2": OLMO2,
    "openelm": OPENELM,
    "phi": PHI,
    "phi2": PHI,
    "phi3": PHI3,
    "phi3small": PHI3SMALL,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "smollm3": SMOLLM3,
    "stablelm": STABLELM,
    "starcoder2": STARCODER2,
}
"""model_type, and general.architecture of a GGUF file -> family."""
MULTIMODAL: dict[str, MultimodalFamily] = {
    "llava": LLAVA,
    "smolvlm": SMOLVLM,
    "idefics3": IDEFICS,
    "moondream1": MOONDREAM,
}
"""model_type -> family of models that see."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that a configuration names; CheckpointError with the known ones otherwise."""
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise CheckpointError(
            "the model's architecture is not supported",
            got=model_type,
            wanted=f"one of {', '.join(sorted([*FAMILIES, *MULTIMODAL]))}",
            hint="--task auto where it is no language model; a new family is a file in export/families/ and a line in "
            "its registry.py: see CONTRIBUTING.md",
        )
    return FAMILIES[model_type]


def multimodal_family(config: Mapping[str, Any]) -> MultimodalFamily | None:
    """The family of a model that sees; None for one that does not."""
    kind = config.get("model_type")
    return MULTIMODAL.get(kind) if isinstance(kind, str) else None


def load_family(checkpoint: Checkpoint) -> tuple[DecoderConfig, CanonicalTensors]:
    """What a checkpoint holds, in canonical terms. Names and shapes are checked here, values as they are read.

    Raises:
        CheckpointError: an unknown architecture or option; missing or unexpected tensors; a wrong shape.
    """
    family = family_of(checkpoint.config)
    config = family.configure(checkpoint.config)
    return config, CanonicalTensors(checkpoint, family, config)
