"""Writes a model that sees for ExecuTorch: three methods in one .pte file, as its own MultimodalRunner has them.

    vision_encoder(pixels float32 [1, 3, height, width]) -> features float32 [1, rows, hidden]
    token_embedding(tokens int64 [1, sequence]) -> float32 [1, sequence, hidden]
    text_decoder(embeddings float32 [1, sequence, hidden], start_pos int64 [1]) -> logits float32 [1, 1, vocab]

An embedding that is the head too is in the file once, of XNNPACK. For the Core ML delegate the encoder and the decoder
are Core ML programs; the embedding is ExecuTorch's own kernel there too, since it only copies rows.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from satchel.devices.plan import Plan
from satchel.export.decoder import embed
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.executorch import (
    FILE,
    check_target,
    decoder_method,
    entry_of,
    int8_activations,
    runner_metadata,
)
from satchel.export.formats.executorch_program import Method
from satchel.export.formats.pte import write_pte
from satchel.export.ops.base import Weights
from satchel.export.ops.executorch import EmbeddingOps, Tensor
from satchel.export.progress import Progress, silent
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.encoder import encoder
from satchel.export.vision.executorch import ExecutorchVisionOps
from satchel.runtime.manifest import ModelEntry, ModelInfo, PartEntry, TensorSpec

ENCODER, EMBEDDING, DECODER = "vision_encoder", "token_embedding", "text_decoder"
"""executorch/extension/llm/runner/constants.h."""


def write(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    vision: VisionConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
) -> tuple[ModelEntry, PartEntry, PartEntry]:
    """Writes `model.pte`; one call of the decoder takes all rows of a picture, of XNNPACK.

    Returns:
        (of the decoder, of the encoder, of the embedding).

    Raises:
        PlanError: for a target that is not known.
        FormatError: for a weight scheme that the target has no kernel for.
    """
    check_target(plan)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        parts = {name: Path(scratch, name) for name in (ENCODER, DECODER)}
        for part in parts.values():
            part.mkdir()
        made = decoder_method(
            DECODER, parts[DECODER], weights, config, plan, info, progress, embedded=True, rows=vision.rows
        )
        seeing = encoder_method(ENCODER, parts[ENCODER], weights, vision, plan, config, info)
        methods = [seeing, _embedding(weights, config, made.longest), made.method]
        write_pte(folder / FILE, methods, runner_metadata(config, plan, made.longest), progress)
    entry = entry_of(config, plan, made)
    entry = replace(entry, options={**entry.options, "encoder": ENCODER, "embedding": EMBEDDING})
    pixels = TensorSpec("pixels", (1, vision.channels, vision.image_size, vision.image_size), "float32")
    features = TensorSpec("features", (1, vision.rows, vision.projector[-1]), "float32")
    tokens = TensorSpec("tokens", (1, "sequence"), "int64")
    rows = TensorSpec("embeddings", (1, "sequence", config.hidden_size), "float32")
    return entry, PartEntry(FILE, (pixels,), (features,)), PartEntry(FILE, (tokens,), (rows,))


def encoder_method(
    name: str, scratch: Path, weights: Weights, vision: VisionConfig, plan: Plan, config: DecoderConfig, info: ModelInfo
) -> Method:
    """The tower and the projector as a method; `scratch` as formats/executorch.py has it."""
    if plan["target"] == "coreml":
        return _encoder_by_coreml(name, scratch, weights, vision, plan, config, info)
    ops = ExecutorchVisionOps(vision, weights, int8_activations=int8_activations(plan))
    features = ops.leave(encoder(ops, vision))
    return Method(name, ops.calls, [ops.pixels], [features])


def _encoder_by_coreml(
    name: str, scratch: Path, weights: Weights, vision: VisionConfig, plan: Plan, config: DecoderConfig, info: ModelInfo
) -> Method:
    from satchel.export.formats import coreml_vision  # and with it coremltools
    from satchel.export.formats.coreml_settings import read_settings
    from satchel.export.formats.executorch_coreml import CoremlDelegate, coreml_plan, describe_package

    settings = read_settings(weights, coreml_plan(plan, config))
    part = coreml_vision.write_encoder(scratch, weights, vision, settings, info)
    describe_package(scratch / part.path, part.inputs, part.outputs)
    pixels = Tensor((1, vision.channels, vision.image_size, vision.image_size))
    features = Tensor((1, vision.rows, vision.projector[-1]))
    call = CoremlDelegate([pixels, features], scratch, settings.compute)
    return Method(name, [call], [pixels], [features])


def _embedding(weights: Weights, config: DecoderConfig, longest: int) -> Method:
    ops = EmbeddingOps(config, weights, longest)
    rows = ops.leave(embed(cast(Any, ops)))
    return Method(EMBEDDING, ops.calls, [ops.given], [rows])
