"""LLaVA: a CLIP or SigLIP tower and a projector of two linears, in front of a Llama or a Phi.

Special about it: features are taken from a layer before the last, so that the layers behind it, and the tower's last
norm, are not part of the model. A Phi has no bias in its head here. Checkpoints come under three sets of names: as they
were published, as transformers had them in between, and as it saves them now.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from satchel.export.families.multimodal import (
    CLIP,
    SIGLIP,
    MultimodalFamily,
    Named,
    activation,
    as_stored,
    layers_of,
    placeholder,
    sub_configuration,
    text_configuration,
    tower,
    tower_names,
)
from satchel.export.families.options import count, flag, refuse_unknown, refuse_unsupported
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import CheckpointError

READ = (
    "model_type", "architectures", "text_config", "vision_config", "image_token_index", "image_token_id",
    "image_seq_length", "projector_hidden_act", "vision_feature_select_strategy", "vision_feature_layer",
    "multimodal_projector_bias", "tie_word_embeddings", "ignore_index", "vocab_size",
)  # fmt: skip
TOWERS = {"clip_vision_model": CLIP, "siglip_vision_model": SIGLIP}
TEXTS = ("llama", "phi")
STRATEGIES = ("default", "full")


def text(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's configuration."""
    return text_configuration(config, TEXTS)


def vision(config: Mapping[str, Any]) -> VisionConfig:
    """The tower and the projector.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, "LlavaForConditionalGeneration")
    refuse_unknown(config, READ)
    given = sub_configuration(config, "vision_config")
    if given.get("model_type") not in TOWERS:
        raise CheckpointError("this vision tower is not supported", got=given.get("model_type"), wanted=list(TOWERS))
    kind = TOWERS[given["model_type"]]
    strategy = config.get("vision_feature_select_strategy", "default")
    if strategy not in STRATEGIES or (strategy == "default" and not kind.class_token):
        wanted = '"default" or "full"; without a class token "full"'  # "default" would drop a patch
        raise CheckpointError("vision_feature_select_strategy is not usable", got=strategy, wanted=wanted)
    hidden = count(text(config), "hidden_size")
    return VisionConfig(
        family="llava",
        layers=_used_layers(config, layers_of(given, kind), kind.class_token),
        keeps_class=strategy == "full",
        patch_bias=not kind.class_token,
        pre_norm=kind.class_token,
        post_norm=False,
        shuffle=1,
        projector=(hidden, hidden),
        projector_bias=flag(config, "multimodal_projector_bias", True),
        projector_activation=activation(config, "projector_hidden_act", "gelu"),
        **tower(given, kind),
    )


def _used_layers(config: Mapping[str, Any], layers: int, clip: bool) -> int:
    """How many layers the features have been through: index 0 is what goes into the first."""
    layer = config.get("vision_feature_layer", -2)
    if (
        isinstance(layer, bool)
        or not isinstance(layer, int)
        or layer not in (*range(-layers, 0), *range(1, layers + 1))
    ):
        wanted = f"one layer, {-layers} to {layers} and not 0"
        raise CheckpointError("vision_feature_layer is not supported", got=repr(layer)[:80], wanted=wanted)
    used = layer if layer >= 0 else layers + 1 + layer
    if used == layers and not clip:  # transformers gives the last ones before or behind the norm, as the version goes
        raise CheckpointError("features of SigLIP's last layer", got=layer, wanted="a layer before the last")
    return used


def image_placeholder(config: Mapping[str, Any]) -> int:
    """Id of "<image>"."""
    return placeholder(config, ("image_token_index", "image_token_id"), 32000)


UNUSED_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")


def name(config: VisionConfig, stored: str) -> Named:
    """What a stored tensor is."""
    inner = stored.removeprefix("model.") if not stored.startswith("model.layers.") else stored
    if inner.startswith("lm_head."):
        return "text", inner
    if inner.startswith("language_model."):
        rest = inner.removeprefix("language_model.").removeprefix("model.")
        return "text", rest if rest.startswith("lm_head.") else f"model.{rest}"
    if inner.startswith("multi_modal_projector.linear_"):
        number, _, last = inner.removeprefix("multi_modal_projector.linear_").partition(".")
        base = f"vision.projector.{int(number) - 1}"
        return "vision", base if last == "weight" else f"{base}.{last}"
    if not inner.startswith("vision_tower."):
        raise KeyError(stored)
    rest = inner.removeprefix("vision_tower.").removeprefix("vision_model.")
    return _of_tower(config, rest)


def _of_tower(config: VisionConfig, rest: str) -> Named:
    names, unused = tower_names(config), UNUSED_LAYER.match(rest)
    if rest in names:
        return "vision", names[rest]
    passed = rest.startswith(("post_layernorm.", "head.")) or rest.endswith("position_ids")
    if passed or (unused and int(unused[1]) >= config.layers):
        return None
    raise KeyError(rest)


LLAVA = MultimodalFamily(
    model_type="llava",
    text_types=TEXTS,
    text=text,
    vision=vision,
    placeholder=image_placeholder,
    name=name,
    restore=as_stored,
    head_bias=False,
)
