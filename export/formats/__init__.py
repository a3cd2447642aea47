"""Writers of model files: one module a format, each from the same weights and the same decoder."""

from __future__ import annotations

import importlib
from pathlib import Path

from satchel.devices.plan import Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import Weights
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import MissingPackageError
from satchel.runtime.manifest import ModelEntry, ModelInfo

WRITERS = {
    "coreml": "satchel.export.formats.coreml",
    "onnx": "satchel.export.formats.onnx",
    "executorch": "satchel.export.formats.executorch",
}
"""Format -> module with `write`; imported when it is needed, since each pulls in its own toolchain."""


def write_model(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
    *,
    layers: bool = False,
) -> ModelEntry:
    """Writes the model file of a plan into a folder, and says how it is called.

    Args:
        folder: exists, and holds no model file yet.
        weights: read a matrix at a time.
        config: shape of the decoder.
        plan: whose format is one of WRITERS.
        info: for the file's metadata.
        progress: told how far it is.
        layers: also write what gives the residual stream behind each layer, where the format needs a file for that.
    """
    try:
        module = importlib.import_module(WRITERS[plan.format])
    except ImportError as error:
        hint = "pip install 'satchel[export]'"
        raise MissingPackageError(f"a package that writes {plan.format} is missing", got=error, hint=hint) from error
    further = {"layers": True} if layers and plan.format == "onnx" else {}
    entry: ModelEntry = module.write(folder, weights, config, plan, info, progress, **further)
    return entry
