"""SmolVLM, and Idefics3 which it is built like: SigLIP, squares of patches joined, one linear, and a Llama.

Special about it: position embeddings are found by where a patch lies as a share of the picture, so that pictures of any
size can be seen. Here all are of one size; the table is put in that order once. Large pictures are cut into tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from satchel.export.families.multimodal import (
    IDEFICS3,
    MultimodalFamily,
    Named,
    layers_of,
    placeholder,
    sub_configuration,
    text_configuration,
    tower,
    tower_names,
)
from satchel.export.families.options import count, refuse_unknown
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import CheckpointError

ARCHITECTURES = {"smolvlm": "SmolVLMForConditionalGeneration", "idefics3": "Idefics3ForConditionalGeneration"}
READ = (
    "model_type", "architectures", "text_config", "vision_config", "image_token_id", "scale_factor",
    "tie_word_embeddings", "vocab_size", "_pad_token_id", "image_seq_len",
)  # fmt: skip
DROPPED = (
    "_flash_attn_2_enabled", "neftune_noise_alpha", "perceiver_config", "pixel_shuffle_factor", "qk_layer_norms",
    "use_resampler", "architectures",
)  # fmt: skip
"""Keys of published text configurations that their own program does not look at (general knowledge of the hub)."""
VISION_DROPPED = ("max_image_size", "size", "tie_word_embeddings", "use_base_siglip")


def text(config: Mapping[str, Any]) -> dict[str, Any]:
    """The text model's configuration."""
    given = sub_configuration(config, "text_config")
    if given.get("use_resampler") or given.get("qk_layer_norms"):
        raise CheckpointError("a resampler, or norms of queries and keys, in a SmolVLM", got="text_config")
    return text_configuration(config, ("llama",), DROPPED)


def vision(config: Mapping[str, Any]) -> VisionConfig:
    """The tower and the projector.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    kind = str(config.get("model_type"))
    wanted = [ARCHITECTURES[kind]]
    if config.get("quantization_config") or (config.get("architectures") or wanted) != wanted:
        raise CheckpointError("not a checkpoint of this family", got=config.get("architectures"), wanted=wanted)
    refuse_unknown(config, READ)
    given = {k: v for k, v in sub_configuration(config, "vision_config").items() if k not in VISION_DROPPED}
    shape = tower(given, IDEFICS3)
    factor = config.get("scale_factor", 2)
    grid = shape["image_size"] // shape["patch_size"]
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1 or grid % factor:
        raise CheckpointError("scale_factor does not divide the patches", got=repr(factor)[:40], wanted=f"of {grid}")
    return VisionConfig(
        family=kind,
        layers=layers_of(given, IDEFICS3),
        keeps_class=False,
        patch_bias=True,
        pre_norm=False,
        post_norm=True,
        shuffle=factor,
        projector=(count(text(config), "hidden_size"),),
        projector_bias=False,
        **shape,
    )


def image_placeholder(config: Mapping[str, Any]) -> int:
    """Id of "<image>"."""
    return placeholder(config, ("image_token_id",), 128257)


def name(config: VisionConfig, stored: str) -> Named:
    """What a stored tensor is."""
    if stored.startswith("lm_head."):
        return "text", stored
    rest = stored.removeprefix("model.")
    if rest.startswith("text_model."):
        return "text", f"model.{rest.removeprefix('text_model.')}"
    if rest == "connector.modality_projection.proj.weight":
        return "vision", "vision.projector.0"
    if not rest.startswith("vision_model."):
        raise KeyError(stored)
    rest = rest.removeprefix("vision_model.")
    return None if rest.endswith("position_ids") else ("vision", tower_names(config)[rest])


def restore(config: VisionConfig, which: str, values: np.ndarray) -> np.ndarray:
    """Rows of the position table in the order in which patches ask for them.

    A patch at i of n asks for the row of the last border that i / n has reached. In fp32 that is not always i: the
    original's own rounding is kept.
    """
    if which != "vision.position_embedding":
        return values
    import torch

    grid = config.grid
    borders = torch.arange(1 / grid, 1.0, 1 / grid)
    shares = torch.arange(grid, dtype=torch.float32) * (1.0 / torch.tensor(grid))
    found = torch.bucketize(shares.clamp(max=1.0 - 1e-6), borders, right=True).numpy()
    order = (found[:, None] * grid + found[None, :]).reshape(-1)
    return np.ascontiguousarray(values.reshape(grid * grid, -1)[order])


SMOLVLM, IDEFICS = (
    MultimodalFamily(
        model_type=kind,
        text_types=("llama",),
        text=text,
        vision=vision,
        placeholder=image_placeholder,
        name=name,
        restore=restore,
    )
    for kind in ARCHITECTURES
)
