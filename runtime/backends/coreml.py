"""Runs a Core ML bundle: by our interpreter on any machine, or by the real framework on a Mac.

How the package is called is written at the head of export/formats/coreml.py. In short: `inputIds` and `position` go in,
`logits` come out; the cache is the program's states, or inputs and outputs that are kept here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from satchel.runtime.errors import FormatError, MissingPackageError, UsageError
from satchel.runtime.manifest import ModelEntry
from satchel.runtime.mil import OverflowReport, Watch, load
from satchel.runtime.mil.precision import check_precision

Engine = Literal["auto", "interpreter", "framework"]
ENGINES = ("auto", "interpreter", "framework")

# A prompt's last tokens go through the padded prefill function if they fill this part of it, else one at a time.
WORTH_PADDING = 1 / 8

PRESENT = {"keyCache": "presentKeys", "valueCache": "presentValues"}
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

    Attributes:
        watch: in fp16, knows the first op that overflowed.
    """

    def __init__(self, path: Path, precision: str, stateful: bool, max_memory: int | None) -> None:
        self._program = load(path, max_memory)
        self._precision = check_precision(precision)
        self._stateful = stateful
        self.watch = Watch()
        self.reset()

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        return self._program.run(inputs, function, self._state, self._precision, self.watch)

    def reset(self) -> None:
        """Makes new states."""
        self._state = self._program.make_state() if self._stateful else None


class Framework:
    """Runs functions by Core ML itself, through coremltools. Written from its documentation: not tried yet.

    The states are made by the default function's model and given to every function's.
    """

    def __init__(self, path: Path, functions: Sequence[str], stateful: bool, compute: str) -> None:
        ct = importlib.import_module("coremltools")
        units = getattr(ct.ComputeUnit, COMPUTE_UNITS.get(compute, "ALL"))
        several = len(functions) > 1
        self._models = {
            f: ct.models.MLModel(str(path), compute_units=units, function_name=f if several else None)
            for f in functions
        }
        self._first = functions[0]
        self._stateful = stateful
        self.reset()

    def __call__(self, function: str, inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Runs a function once."""
        outputs: Mapping[str, np.ndarray] = self._models[function].predict(dict(inputs), state=self._state)
        return outputs

    def reset(self) -> None:
        """Makes new states."""
        self._state = self._models[self._first].make_state() if self._stateful else None


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


class CoremlBackend:
    """A Core ML package with its cache.

    Args:
        folder: of the bundle.
        entry: how the package is called.
        precision: of the interpreter: "fp32", or "fp16" to round every fp16 value as the engine would.
        engine: "auto", "interpreter" or "framework".
        max_memory: bytes that the interpreter may spend on expanded weights; None is no limit.

    Attributes:
        position: tokens in the cache.
    """

    position: int

    def __init__(
        self,
        folder: Path,
        entry: ModelEntry,
        precision: str = "fp32",
        engine: Engine = "auto",
        max_memory: int | None = None,
    ) -> None:
        check_precision(precision)
        self._entry = entry
        functions: dict[str, str] = entry.options.get("functions", {"decode": "main"})
        self._decode = functions["decode"]
        self._prefill = functions.get("prefill")
        self._stateful = entry.options.get("cache") == "state"
        self.engine = choose_engine(engine)
        path = folder / entry.path
        if self.engine == "framework":
            compute = str(entry.options.get("compute", "all"))
            names = [n for n in (self._decode, self._prefill) if n]
            self._run: Runner = Framework(path, names, self._stateful, compute)
        else:
            self._run = Interpreter(path, precision, self._stateful, max_memory)
        self.reset()

    @property
    def overflow(self) -> OverflowReport | None:
        """In fp16, the first op of any call since loading that overflowed or made a NaN."""
        return self._run.watch.report if isinstance(self._run, Interpreter) else None

    def reset(self) -> None:
        """Empties the cache."""
        self.position = 0
        self._run.reset()
        shapes = {s.name: s for s in self._entry.inputs}
        self._cache = {} if self._stateful else {n: _zeros(shapes[n]) for n in PRESENT if n in shapes}

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids to the cache, whole chunks at a time where the package can; returns the last logits [vocab]."""
        self._check(len(ids))
        logits: np.ndarray | None = None
        rest = [int(i) for i in ids]
        while rest:
            size = self._chunk(len(rest))
            logits = self._call(rest[:size], size)
            rest = rest[size:]
        assert logits is not None
        return logits

    def step(self, token: int) -> np.ndarray:
        """Appends one id; returns float32 [vocab]."""
        self._check(1)
        return self._call([int(token)], 1)

    def _check(self, count: int) -> None:
        room = self._entry.context_length - self.position
        if count == 0:
            raise UsageError("tokens to append", got="none", wanted="at least one")
        if count > room:
            hint = f"the context holds {self._entry.context_length} tokens, {self.position} are in it"
            raise UsageError("tokens to append", got=count, wanted=f"at most {room}", hint=hint)

    def _chunk(self, left: int) -> int:
        """How many tokens the next call takes: a (padded) prefill chunk, or one."""
        length = self._entry.prefill_length
        fits = self.position + length <= self._entry.context_length
        if self._prefill and fits and left > length * WORTH_PADDING:
            return min(left, length)
        return 1

    def _call(self, tokens: list[int], count: int) -> np.ndarray:
        """Runs one function on tokens, padded to its length, and moves on."""
        by_prefill = count > 1 and self._prefill is not None
        length = self._entry.prefill_length if by_prefill else 1
        function = self._prefill if by_prefill and self._prefill else self._decode
        padded = np.zeros((1, length), np.int32)
        padded[0, :count] = tokens
        position = np.array([self.position], np.int32)
        outputs = self._run(function, {"inputIds": padded, "position": position, **self._cache})
        self._keep(outputs, count)
        self.position += count
        return np.array(_output(outputs, "logits")[0, count - 1], dtype=np.float32)

    def _keep(self, outputs: Mapping[str, np.ndarray], count: int) -> None:
        """Writes the keys and values of real tokens into the cache, where the caller keeps it."""
        for name, cache in self._cache.items():
            cache[:, :, self.position : self.position + count] = _output(outputs, PRESENT[name])[:, :, :count]


def _zeros(spec: Any) -> np.ndarray:
    return np.zeros([int(d) for d in spec.shape], np.float32)


def _output(outputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in outputs:
        raise FormatError("outputs of the package", got=sorted(outputs), wanted=name)
    return outputs[name]
