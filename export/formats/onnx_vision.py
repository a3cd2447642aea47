"""Writes a model that sees as three ONNX graphs over one file of weights.

    vision.onnx       pixel_values fp32 [pictures, 3, height, width] -> image_features [pictures, rows, hidden]
    embedding.onnx    input_ids int64 [batch, sequence] -> inputs_embeds fp32 [batch, sequence, hidden]
    model.onnx        as formats/onnx.py has it, with inputs_embeds in the place of input_ids

All have their weights in model.onnx.data, so that an embedding that is the head too is there once. There is no
genai_config.json: onnxruntime-genai has programs of its own for models that see, which call other graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from satchel.devices.plan import Plan
from satchel.export.decoder import embed
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.onnx import DATA, MODEL, build, describe, entry_of, metadata, spec
from satchel.export.ops.base import Weights
from satchel.export.ops.onnx import ACCURACY_LEVEL, CacheInputs, OnnxOps
from satchel.export.ops.onnx_graph import ExternalData, GraphBuilder
from satchel.export.progress import Progress, silent
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.encoder import encoder
from satchel.export.vision.onnx import OnnxVisionOps
from satchel.runtime.errors import OutputError
from satchel.runtime.manifest import ModelEntry, ModelInfo, PartEntry

VISION, EMBEDDING = "vision.onnx", "embedding.onnx"

Build = Callable[[GraphBuilder], list[ir.Value]]


def write(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    vision: VisionConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
) -> tuple[ModelEntry, PartEntry, PartEntry]:
    """Writes the three graphs and their weights.

    Returns:
        (of the decoder, of the encoder, of the embedding).

    Raises:
        OutputError: when the files cannot be written.
        FormatError: for weights that ONNX's operators cannot hold.
    """
    try:
        with (folder / DATA).open("wb") as stream:
            data = ExternalData(folder / DATA, stream)
            builds: dict[str, Build] = {
                VISION: lambda graph: _vision(graph, weights, vision, plan),
                EMBEDDING: lambda graph: _embedding(graph, weights, config),
                MODEL: lambda graph: build(graph, weights, config, plan, progress, embedded=True),
            }
            written = {name: _write(folder / name, GraphBuilder(data), make, info) for name, make in builds.items()}
    except OSError as error:
        hint = "free disk space, or another folder"
        raise OutputError("ONNX: the model could not be written", got=error, hint=hint) from error
    return _entries(written, plan)


def _write(
    path: Path, graph: GraphBuilder, make: Build, info: ModelInfo
) -> tuple[GraphBuilder, list[ir.Value]]:  # fmt: skip
    outputs = make(graph)
    model = graph.model(outputs, metadata(info))
    path.write_bytes(ir.serde.serialize_model(model).SerializeToString(deterministic=True))
    return graph, outputs


def _vision(graph: GraphBuilder, weights: Weights, vision: VisionConfig, plan: Plan) -> list[ir.Value]:
    shape: list[int | str] = ["pictures", vision.channels, vision.image_size, vision.image_size]
    pixels = graph.input("pixel_values", ir.DataType.FLOAT, shape)
    level = int(plan.get("accuracy_level", str(ACCURACY_LEVEL)))
    ops = OnnxVisionOps(graph, vision, weights, pixels, accuracy_level=level)
    features = ops.finished(encoder(ops, vision))
    features.name = "image_features"
    describe(features, ["pictures", vision.rows, vision.projector[-1]])
    return [features]


def _embedding(graph: GraphBuilder, weights: Weights, config: DecoderConfig) -> list[ir.Value]:
    ids = graph.input("input_ids", ir.DataType.INT64, ["batch_size", "sequence_length"])
    rows = embed(OnnxOps(graph, config, weights, ids, CacheInputs((), ids, ids, 0)))
    assert isinstance(rows, ir.Value)
    rows.name = "inputs_embeds"
    describe(rows, ["batch_size", "sequence_length", config.hidden_size])
    return [rows]


def _entries(
    written: dict[str, tuple[GraphBuilder, list[ir.Value]]], plan: Plan
) -> tuple[ModelEntry, PartEntry, PartEntry]:
    graph, outputs = written[MODEL]
    for other, _ in written.values():
        for version, reason in other.needs.items():
            graph.require(version, reason)
    vision, embedding = (
        PartEntry(name, tuple(map(spec, written[name][0].inputs)), tuple(map(spec, written[name][1])))
        for name in (VISION, EMBEDDING)
    )
    return entry_of(graph, outputs, plan), vision, embedding
