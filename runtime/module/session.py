"""A loaded module: the same calls for Core ML, ONNX and ExecuTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from satchel.runtime.errors import UsageError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.module.bundle import ModuleBundle, open_module_bundle
from satchel.runtime.module.manifest import ModuleFile
from satchel.runtime.module.runners import Runner, load_runner, sizes_in
from satchel.runtime.module.summary import module_summary


def load_module(path: str | Path, *, verify: bool = True, **options: Any) -> ModuleSession:
    """Opens a bundle of a module and loads it; arguments and errors as session.load has them."""
    return ModuleSession(open_module_bundle(path, verify=verify), **options)


class ModuleSession:
    """A module that is called by name.

        with satchel.load("resnet-iphone-15-pro.satchel") as session:
            session.run(x=pixels)["output"]

    Args:
        bundle: opened.
        options: of the backend, such as `threads` for ONNX or `precision` for Core ML's interpreter.
    """

    def __init__(self, bundle: ModuleBundle, **options: Any) -> None:
        self.bundle = bundle
        self._options = options
        self._runners: dict[str, Runner] = {}

    def __enter__(self) -> ModuleSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def info(self) -> dict[str, Any]:
        """The essentials of the manifest, as a JSON object."""
        return module_summary(self.bundle)

    @property
    def parts(self) -> dict[str, ModuleFile]:
        """Name of each model file -> how it is called; of a module that is one graph, "model" alone."""
        return self.bundle.manifest.module.files

    def run(self, **inputs: Any) -> dict[str, np.ndarray]:
        """Calls the module that is one graph.

        Args:
            inputs: by name: arrays, or what numpy makes one of.

        Raises:
            UsageError: inputs of other names, shapes or numbers than the module takes.
        """
        if list(self.parts) != ["model"]:
            raise UsageError("the module has several parts", got="run", wanted=f"run_part of {sorted(self.parts)}")
        return self.run_part("model", inputs)

    def run_part(self, part: str, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Calls one of several parts; arguments and errors as `run` has them."""
        if part not in self.parts:
            raise UsageError("no such part", got=part, wanted=sorted(self.parts))
        file = self.parts[part]
        specs = {spec.name: spec for spec in file.inputs}
        arrays = {name: np.asarray(value) for name, value in inputs.items()}
        sizes_in(file, arrays)
        cast = {name: as_dtype(specs[name], values) for name, values in arrays.items()}
        if part not in self._runners:
            folder, format = self.bundle.folder, self.bundle.manifest.format
            self._runners[part] = load_runner(folder, format, file, **self._options)
        return self._runners[part](cast)

    def answer(self, **given: Any) -> Any:
        """What the module says to a text, a picture or the like, where it has a task.

        Args:
            given: "text", "text_pair", "image" or "audio", as the task takes them (session.info["task"]).

        Raises:
            UsageError: the module has no task, or takes something else.
        """
        from satchel.runtime.tasks import answer

        return answer(self, given)

    def close(self) -> None:
        """Releases the model; the session is of no use afterwards."""
        self._runners.clear()


def as_dtype(spec: TensorSpec, values: np.ndarray) -> np.ndarray:
    """An input in the manifest's dtype; raises UsageError where numbers would change."""
    if values.dtype.name == spec.dtype:
        return values
    kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}
    wanted = np.dtype(spec.dtype)
    if values.dtype.kind not in kinds[wanted.kind]:
        raise UsageError(f"dtype of {spec.name}", got=values.dtype.name, wanted=spec.dtype)
    cast = values.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, values):
        raise UsageError(f"numbers of {spec.name}", got="beyond its dtype", wanted=spec.dtype)
    return cast
