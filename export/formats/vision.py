"""Writers of models that see: one module a format. A format that is not here is refused before anything is written."""

from __future__ import annotations

import importlib
from pathlib import Path

from satchel.devices.plan import Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import Weights
from satchel.export.progress import Progress, silent
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import PlanError
from satchel.runtime.manifest import ModelEntry, ModelInfo, PartEntry

WRITERS = {
    "coreml": "satchel.export.formats.coreml_vision",
    "onnx": "satchel.export.formats.onnx_vision",
    "executorch": "satchel.export.formats.executorch_vision",
}
"""Format -> module with `write`."""


def check_format(name: str, family: str) -> None:
    """Refuses a format that models that see are not written in.

    Raises:
        PlanError: names it.
    """
    if name not in WRITERS:
        raise PlanError(
            f"a model that sees ({family}) cannot be exported to this format yet", got=name,
            wanted=", ".join(WRITERS), hint="pass --format onnx",
        )  # fmt: skip


def write_model(
    folder: Path,
    weights: Weights,
    config: DecoderConfig,
    vision: VisionConfig,
    plan: Plan,
    info: ModelInfo,
    progress: Progress = silent,
) -> tuple[ModelEntry, PartEntry, PartEntry]:
    """Writes decoder, vision encoder and embedding; arguments as formats.write_model has them.

    Returns:
        (of the decoder, of the encoder, of the embedding).
    """
    check_format(plan.format, vision.family)
    entries: tuple[ModelEntry, PartEntry, PartEntry] = importlib.import_module(WRITERS[plan.format]).write(
        folder, weights, config, vision, plan, info, progress
    )
    return entries
