"""The manifest of a bundle that holds a traced module, and not a decoder. See FORMAT.md, "Modules"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from satchel.devices.plan import Plan
from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError
from satchel.runtime.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    FormatName,
    ModelInfo,
    TensorSpec,
    WeightSchemes,
    WrittenManifest,
    check_files,
    check_model_paths,
)  # fmt: skip


@dataclass(frozen=True)
class SizeRange:
    """Sizes of a dynamic dimension.

    Attributes:
        smallest, largest: any size between them.
        only: the sizes that there are where it is not any between them.
    """

    smallest: int
    largest: int
    only: tuple[int, ...] | None = field(default=None, metadata=strict_json.OPTIONAL)


@dataclass(frozen=True)
class ModuleFile:
    """One model file of a module, and how it is called.

    Attributes:
        path: of the file or .mlpackage folder, relative to the bundle.
        inputs, outputs: by name, in order; a string in a shape names a dynamic dimension.
        sizes: name of each dynamic dimension -> sizes that it may have.
        options: what the backend of the format needs besides, documented in FORMAT.md.
    """

    path: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    sizes: dict[str, SizeRange]
    options: dict[str, Any]


@dataclass(frozen=True)
class TaskEntry:
    """What a module is for, as data: how an app gets from a text or a picture to inputs, and from outputs to an answer.

    Attributes:
        name: such as "feature-extraction".
        inputs: what the app gives: "text", "text_pair", "image", "audio" -> the steps that make inputs of it.
        answer: the steps that make an answer of the outputs.
    """

    name: str
    inputs: dict[str, Any]
    answer: dict[str, Any]


@dataclass(frozen=True)
class ModuleEntry:
    """How an app calls the module.

    Attributes:
        format: which runtime reads it.
        files: name of each part -> its model file; of a module that is one graph, "model" alone.
        task: None for a module that has no task.
    """

    format: FormatName
    files: dict[str, ModuleFile]
    task: TaskEntry | None = field(default=None, metadata=strict_json.OPTIONAL)


@dataclass(frozen=True)
class ModuleManifest(WrittenManifest):
    """manifest.json of such a bundle. The attributes are its keys.

    Attributes:
        model, plan, weights, tools, files, also_for, schema_version: as in Manifest; the plan's context_length and
            prefill_length are 0.
        module: how the model files are called.
    """

    model: ModelInfo
    plan: Plan
    module: ModuleEntry
    weights: WeightSchemes
    tools: dict[str, str]
    files: tuple[FileEntry, ...] = ()
    also_for: tuple[str, ...] | None = field(default=None, metadata=strict_json.OPTIONAL)
    schema_version: int = SCHEMA_VERSION

    @property
    def format(self) -> FormatName:
        """Which runtime reads the bundle."""
        return self.module.format

    def check(self) -> None:
        """Raises BundleError where the parts do not fit."""
        check_files(self.files)
        check_model_paths(self.files, [part.path for part in self.module.files.values()])
        if self.module.format != self.plan.format or not self.module.files:
            raise BundleError("the module and the plan disagree", got=self.module.format, wanted=self.plan.format)
        for part in self.module.files.values():
            _check_sizes(part)


def _check_sizes(part: ModuleFile) -> None:
    named = {size for spec in (*part.inputs, *part.outputs) for size in spec.shape if isinstance(size, str)}
    if unknown := named - set(part.sizes):
        raise BundleError("dimensions of which no sizes are said", got=sorted(unknown), wanted=sorted(part.sizes))
    for name, size in part.sizes.items():
        bounds = (size.smallest, *(size.only or ()), size.largest)
        if size.smallest < 0 or min(bounds) < size.smallest or max(bounds) > size.largest:
            raise BundleError(f"impossible sizes of {name}", got=size)
