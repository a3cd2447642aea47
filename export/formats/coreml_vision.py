"""Writes a model that sees for Core ML: `vision.mlpackage` beside the decoder's package or packages.

    vision.mlpackage   main: pixelValues float [1, 3, height, width] -> imageFeatures float [1, rows, hidden]

The decoder is written as a model of several packages is (formats/coreml.py, "chunks" in runtime/FORMAT.md): a function
that looks up ids gives the residual stream, which the layers' functions take. Between the two the host puts features
into the places of placeholders. That takes packages of several functions, and so iOS18.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.formats import coreml, mlpackage
from satchel.export.formats.coreml_settings import Settings, read_settings
from satchel.export.ops.base import Weights
from satchel.export.ops.mil_builder import TARGETS, Function, Program, fresh_names, mb, types
from satchel.export.ops.mil_matrix import MatrixStore
from satchel.export.ops.mil_store import BlobStore
from satchel.export.progress import Progress, silent
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.encoder import encoder
from satchel.export.vision.mil import FEATURES, LAYOUTS, PIXELS
from satchel.runtime.manifest import ModelEntry, ModelInfo, PartEntry, TensorSpec

PACKAGE = "vision.mlpackage"
FUNCTION = "main"
_FEATURES = {PIXELS: "A picture, prepared as the manifest says", FEATURES: "Rows for the places of its placeholders"}


def write(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    vision: VisionConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
) -> tuple[ModelEntry, PartEntry, PartEntry]:
    """Writes the packages.

    Returns:
        (of the decoder, of the encoder, of the embedding).

    Raises:
        PlanError: the plan asks for what the target lacks.
    """
    settings = read_settings(weights, plan)
    if not settings.blockwise:
        raise PlanError("a model that sees needs packages of several functions", got=settings.target, wanted="iOS18")
    entry = coreml.write(folder, weights, config, plan, info, progress, ids="apart")
    assert entry.chunks is not None
    table = entry.chunks[0]
    encoding = write_encoder(folder, weights, vision, settings, info)
    return entry, encoding, PartEntry(table.path, table.inputs, table.outputs)


def write_encoder(
    folder: Path, weights: Weights, vision: VisionConfig, settings: Settings, info: ModelInfo
) -> PartEntry:  # fmt: skip
    """Writes the encoder's package into `folder`; says how it is called."""
    package = folder / PACKAGE
    (package / mlpackage.WEIGHTS).parent.mkdir(parents=True)
    store = BlobStore(package / mlpackage.WEIGHTS)
    matrices = MatrixStore(store, blockwise=settings.blockwise, dtype=settings.dtype)
    floats = types.fp16 if settings.dtype is np.float16 else types.fp32
    shape = (1, vision.channels, vision.image_size, vision.image_size)
    with fresh_names():
        program = Program()
        inputs = {PIXELS: mb.placeholder(shape, dtype=floats)}
        with Function(inputs, opset_version=TARGETS[settings.target]) as function:
            ops = LAYOUTS[settings.layout](vision, weights, matrices, dict(function.inputs))
            function.set_outputs([ops.finished(encoder(ops, vision))])
        program.add_function(FUNCTION, function)
        expected = {FUNCTION: mlpackage.Expected(matrices.taken(), set())}
        store.close()
        model = mlpackage.to_proto(program, store, int(TARGETS[settings.target]))
    mlpackage.check(model, expected)
    _describe(model, info)
    mlpackage.save(model, package)
    name, result = np.dtype(settings.dtype).name, (1, vision.rows, vision.projector[-1])
    return PartEntry(PACKAGE, (TensorSpec(PIXELS, shape, name),), (TensorSpec(FEATURES, result, name),))


def _describe(model: Any, info: ModelInfo) -> None:
    metadata = model.description.metadata
    metadata.shortDescription = f"The vision encoder of {info.model_id}, by Satchel"
    metadata.versionString, metadata.author, metadata.license = "1", info.author, info.license
    metadata.userDefined["satchel.modelId"] = info.model_id
    for described in (model.description, *model.description.functions):
        for feature in (*described.input, *described.output):
            feature.shortDescription = _FEATURES[feature.name]
