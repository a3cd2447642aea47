"""Layers of a Core ML bundle, by the interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from satchel.runtime.backends.coreml import CoremlBackend
from satchel.runtime.backends.coreml_runners import Interpreter
from satchel.runtime.bundle import Bundle
from satchel.runtime.errors import FormatError
from satchel.runtime.golden_layers import GoldenLayers
from satchel.runtime.manifest import ModelEntry
from satchel.runtime.mil.graph import graph
from satchel.runtime.mil.layers import numbers_by_names
from satchel.runtime.mil.steps import Step


def states(bundle: Bundle, golden: GoldenLayers, options: Mapping[str, Any]) -> np.ndarray:
    """The residual stream at the golden rows, of decode steps: float32 [layers, rows, channels]."""
    backend = _CoremlLayers(bundle.folder, bundle.manifest.entry, **{**options, "engine": "interpreter"})
    rows = []
    for position, token in enumerate(golden.ids(bundle.golden.prompts[0].sequence)):
        backend.seen.clear()
        backend.step(token)
        if position in golden.rows:
            rows.append([values.ravel() for values in backend.seen])
    shapes = {tuple(values.shape for values in row) for row in rows}
    if len(shapes) != 1 or len(set(next(iter(shapes)))) != 1:
        raise FormatError("layers of this program cannot be told apart", got=sorted(shapes))
    return np.stack([np.stack(row) for row in rows], 1)


class _CoremlLayers(CoremlBackend):
    """The backend by interpreter; what each layer of a decode step gave is appended to `seen`, in order."""

    def __init__(self, folder: Path, entry: ModelEntry, **options: Any) -> None:
        self.seen: list[np.ndarray] = []
        super().__init__(folder, entry, **options)

    def _runner(self, *arguments: Any) -> Any:
        runner = cast(Interpreter, super()._runner(*arguments))
        return _Observed(runner, self.seen.append)


class _Observed:
    """A runner that tells of the last value of each layer."""

    def __init__(self, runner: Interpreter, told: Callable[[np.ndarray], None]) -> None:
        self._runner, self._told = runner, told
        self._ends: dict[str, set[str]] = {}
        self.reset = runner.reset

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        if function not in self._ends:
            self._ends[function] = ends_of_layers(self._runner, function)
        ends = self._ends[function]

        def observe(step: Step, operands: Sequence[Any], results: Sequence[Any]) -> None:
            if step.specs and step.specs[0].name in ends:
                self._told(np.array(results[0], np.float32))

        return self._runner.run(function, inputs, observe)


def ends_of_layers(runner: Interpreter, function: str) -> set[str]:
    """Names of the values with which layers end, told by our names of weights; none in one that only looks up ids."""
    found = graph(runner.package, function)
    numbers = numbers_by_names(found)
    last = {numbers[node.output]: node.output for node in found.nodes if node.output in numbers}
    return set(last.values())
