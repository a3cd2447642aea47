"""What calls the functions of a Core ML package: our interpreter on any machine, or the real framework on a Mac."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from satchel.runtime.errors import MissingPackageError, UsageError
from satchel.runtime.mil import Watch, load
from satchel.runtime.mil.interpreter import Observer
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.precision import check_precision

ENGINES = ("auto", "interpreter", "framework")
COMPUTE_UNITS = {
    "all": "ALL",
    "cpuOnly": "CPU_ONLY",
    "cpuAndGPU": "CPU_AND_GPU",
    "cpuAndNeuralEngine": "CPU_AND_NE",
}


class Runner(Protocol):
    """What calls a function of the package and keeps its states."""

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        ...

    def reset(self) -> None:
        """Empties the states."""
        ...


class Interpreter:
    """Runs functions by runtime/mil.

    Args:
        path: of the package.
        precision: "fp32" or "fp16".
        stateful: the function whose states all others share, or None.
        max_memory: bytes that may be spent on expanded weights; None is no limit.
        watch: in fp16, learns of the first op that overflowed.
    """

    def __init__(self, path: Path, precision: str, stateful: str | None, max_memory: int | None, watch: Watch) -> None:
        self._program = load(path, max_memory)
        self._precision = check_precision(precision)
        self._stateful = stateful
        self._watch = watch
        self.reset()

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        return self.run(function, inputs)

    @property
    def package(self) -> Package:
        """What is run."""
        return self._program.package

    def run(
        self, function: str, inputs: Mapping[str, np.ndarray], observe: Observer | None = None
    ) -> Mapping[str, np.ndarray]:
        """Runs a function once; `observe` is called after each op, see interpreter.run."""
        return self._program.run(inputs, function, self._state, self._precision, self._watch, observe=observe)

    def reset(self) -> None:
        """Makes new states."""
        self._state = self._program.make_state(self._stateful) if self._stateful else None


class Framework:
    """Runs functions by Core ML itself, through coremltools. Written from its documentation: not tried yet.

    Args:
        path: of the package.
        functions: name -> whether it has states. Those of the first that has are given to all that have.
        compute: as the manifest names the units.
    """

    def __init__(self, path: Path, functions: Mapping[str, bool], compute: str) -> None:
        ct = importlib.import_module("coremltools")
        units = getattr(ct.ComputeUnit, COMPUTE_UNITS.get(compute, "ALL"))
        several = len(functions) > 1
        self._models = {
            f: ct.models.MLModel(str(path), compute_units=units, function_name=f if several else None)
            for f in functions
        }
        self._stateful = [f for f, stateful in functions.items() if stateful]
        self.reset()

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        state = self._state if function in self._stateful else None
        outputs: Mapping[str, np.ndarray] = self._models[function].predict(dict(inputs), state=state)
        return outputs

    def reset(self) -> None:
        """Makes new states."""
        self._state = self._models[self._stateful[0]].make_state() if self._stateful else None


def choose_engine(engine: str) -> Literal["interpreter", "framework"]:
    """The engine to use: Core ML itself where "auto" finds a Mac with coremltools, else the interpreter.

    Raises UsageError where "framework" is asked for on another system, MissingPackageError without coremltools.
    """
    if engine not in ENGINES:
        raise UsageError("engine for Core ML", got=engine, wanted=ENGINES)
    mac = sys.platform == "darwin"
    installed = mac and importlib.util.find_spec("coremltools") is not None
    if engine == "framework" and not mac:
        raise UsageError("engine 'framework'", got=sys.platform, wanted="macOS", hint="use engine 'interpreter' here")
    if engine == "framework" and not installed:
        raise MissingPackageError("engine 'framework' needs coremltools", hint="pip install coremltools")
    return "framework" if installed and engine != "interpreter" else "interpreter"
