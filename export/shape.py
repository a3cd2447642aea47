"""What a plan and a forecast need to know of a model, from its configuration alone: no weights are read or fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from satchel.devices.plan import ModelShape, TowerShape
from satchel.export.checkpoint.base import read_json
from satchel.export.checkpoint.gguf_file import GgufCheckpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.families.multimodal import MultimodalFamily
from satchel.export.families.registry import FAMILIES, family_of, multimodal_family
from satchel.export.source import Source, resolve
from satchel.export.vision.checkpoint import decoder_config
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.preprocess import processor_options, read_preparation
from satchel.runtime.errors import CheckpointError
from satchel.runtime.images import ImagePreparation, most_tiles

CONFIGURATION_FILES = ["config.json", "tokenizer.json", "preprocessor_config.json", "processor_config.json"]
"""What is fetched of a hub's model."""


@dataclass(frozen=True)
class Described:
    """Where a shape comes from.

    Attributes:
        source: the folder or file, the model's id and its name.
        family: its `model_type`, such as "llama".
        tokenizer_bytes: of tokenizer.json; 0 where there is none (a GGUF file holds its vocabulary otherwise).
    """

    source: Source
    family: str
    tokenizer_bytes: int


def shape_of(model: str | Path) -> tuple[ModelShape, Described]:
    """The shape of a model.

    Args:
        model: as source.resolve takes it, or a config.json. A folder needs no more than that; of a hub id no more is
            fetched but its tokenizer.

    Raises:
        CheckpointError: there is no such model, or its configuration cannot be read or is not supported.
        MissingPackageError: "smollm2" without its package, or a hub id without huggingface_hub.
    """
    given = Path(model)
    source = resolve(given.parent if given.name == "config.json" else model, CONFIGURATION_FILES)
    config = _configuration(source.path)
    seeing = multimodal_family(config)
    decoder = decoder_config(seeing, config) if seeing else family_of(config).configure(config)
    tokenizer = source.path / "tokenizer.json"
    size = tokenizer.stat().st_size if tokenizer.is_file() else 0
    shape = shape_of_decoder(decoder)
    if seeing:
        shape = replace(shape, tower=tower_of(seeing, config, source.path))
    return shape, Described(source, seeing.model_type if seeing else decoder.family, size)


def is_language_model(model: str | Path) -> bool:
    """Whether a model generates text: a GGUF file, or an architecture of a family's that has a head for it.

    Raises:
        CheckpointError, MissingPackageError: as shape_of.
    """
    config = _configuration(resolve(model, CONFIGURATION_FILES).path)
    names = [str(name) for name in config.get("architectures") or ["ForCausalLM"]]
    known = config.get("model_type") in FAMILIES and any("ForCausalLM" in name for name in names)
    return known or multimodal_family(config) is not None


def tower_of(family: MultimodalFamily, config: Mapping[str, Any], folder: Path) -> TowerShape:
    """The part that sees, of a configuration and, where it is there, what is said of the image processor."""
    vision = family.vision(config)
    try:
        images = read_preparation(processor_options(folder, family, vision), vision)
    except CheckpointError:  # not there, where config.json is all that there is; an export says so
        images = None
    return shape_of_tower(vision, images)


def shape_of_tower(vision: VisionConfig, images: ImagePreparation | None) -> TowerShape:
    """The same of what has been read."""
    matrices = vision.matrix_shapes()
    patches = math.prod(matrices["vision.patch_embedding"])
    linears = sum(map(math.prod, matrices.values())) - patches
    floats = patches + sum(size for (size,) in vision.vector_shapes().values())
    return TowerShape(
        layers=vision.layers, hidden_size=vision.hidden_size, heads=vision.heads,
        intermediate_size=vision.intermediate_size, positions=vision.positions, rows=vision.rows,
        tiles=most_tiles(images) if images else 1, linears=linears, floats=floats,
    )  # fmt: skip


def shape_of_decoder(config: DecoderConfig) -> ModelShape:
    """The same of a configuration that has been read."""
    sizes = [*config.matrix_shapes().values(), *config.vector_shapes().values()]
    heads = sum(config.layer(i).kv_heads for i in range(config.layers))
    rows = sorted({columns for _, columns in config.linear_shapes().values()})
    usual = {config.hidden_size, config.heads * config.head_dim, config.intermediate_size}
    return ModelShape(
        layers=config.layers, hidden_size=config.hidden_size, heads=config.heads, kv_heads=config.kv_heads,
        head_dim=config.head_dim, intermediate_size=config.intermediate_size, vocab_size=config.vocab_size,
        parameters=sum(map(math.prod, sizes)), max_position=config.max_position,
        tied_embeddings=config.tied_embeddings, activation=config.activation, norm=config.norm,
        pre_norm=config.pre_norm, softcapped=config.attention_softcap > 0,
        sparse_beyond=min((layer.blocks.reach for layer in config.each_layer() if layer.blocks), default=0),
        rotated=_unless(min((rope.rotated for rope in config.ropes()), default=0), config.head_dim),
        cached_heads=_unless(heads, config.layers * config.kv_heads),
        row_lengths=() if set(rows) == usual else tuple(rows),
    )  # fmt: skip


def _unless(count: int, usual: int) -> int:
    """A count, but 0 where it is the usual one, as ModelShape has it."""
    return 0 if count == usual else count


def _configuration(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        return read_json(path / "config.json")
    if path.suffix == ".gguf":
        return GgufCheckpoint(path).config
    raise CheckpointError(
        "this file does not describe a model", got=path.name, wanted="a folder with config.json, or a .gguf file"
    )
