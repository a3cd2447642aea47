"""Writers of modules: a Program and its compressed matrices -> a model file, a module a format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from satchel.devices.plan import Plan
from satchel.export.module.program import Inputs, Program
from satchel.export.module.weights import Weight
from satchel.export.palettize.store import WeightStore
from satchel.runtime.manifest import ModelInfo
from satchel.runtime.module.manifest import ModuleFile

MODULES = {
    "coreml": "satchel.export.module.formats.coreml",
    "onnx": "satchel.export.module.formats.onnx",
    "executorch": "satchel.export.module.formats.executorch",
}


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        name: of the part, which its file gets too.
        program: prepared.
        weights: its matrices.
        store: what became of them.
        examples: inputs, at least one; each size among them is one that the app will use.
        plan: choices.
        info: goes into the file's metadata.
    """

    name: str
    program: Program
    weights: Sequence[Weight]
    store: WeightStore
    examples: Sequence[Inputs]
    plan: Plan
    info: ModelInfo


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        file: how it is called.
        schemes: name of each weight -> the scheme that it has in the file.
    """

    file: ModuleFile
    schemes: dict[str, str]


def write_module(folder: Path, request: Request) -> Written:
    """Writes a part of a bundle into `folder`.

    Raises:
        FormatError: an op that the converter does not know, or a weight that is not where it should be.
    """
    write: Callable[[Path, Request], Written] = import_module(MODULES[request.plan.format]).write
    return write(folder, request)
