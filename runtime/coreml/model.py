"""A Core ML model that is called as an app calls it: features in, features out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, overload

import numpy as np

from satchel.runtime.coreml.feature_values import as_array, as_input, as_output, filled
from satchel.runtime.coreml.features import Feature, Signature, read_signature
from satchel.runtime.errors import UsageError
from satchel.runtime.mil.interpreter import State, Watch
from satchel.runtime.mil.limits import Limit
from satchel.runtime.mil.program import Program
from satchel.runtime.mil.program import load as load_program


class ModelState(State):
    """The states of a stateful model between calls. Made by `Model.make_state`, given to `Model.predict`."""

    def read_state(self, name: str) -> np.ndarray:
        """A copy of the state `name`, as float16, which is the type of Core ML's states."""
        with np.errstate(over="ignore"):
            return self._known(name).astype(np.float16)

    def write_state(self, name: str, value: Any) -> None:
        """Replaces the content of the state `name` by an array of the same shape."""
        old, new = self._known(name), as_array(name, value)
        if new.shape != old.shape:
            raise UsageError(f"shape of state {name}", got=list(new.shape), wanted=list(old.shape))
        self.arrays[name] = new.astype(old.dtype)

    def _known(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            raise UsageError("name of a state", got=name, wanted=sorted(self.arrays))
        return self.arrays[name]


class Model:
    """A loaded model. See `load`.

    Attributes:
        program: the ML Program itself, which takes and gives tensors.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._signatures: dict[str, Signature] = {}
        self.signature()

    @property
    def inputs(self) -> Mapping[str, Feature]:
        """Inputs of the default function: name -> shape, dtype, and what kind of feature."""
        return self.signature().inputs

    @property
    def outputs(self) -> Mapping[str, Feature]:
        """Outputs of the default function."""
        return self.signature().outputs

    @property
    def states(self) -> Mapping[str, Feature]:
        """States of the default function."""
        return self.signature().states

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions, the default one first."""
        return self.program.functions

    @property
    def metadata(self) -> dict[str, str]:
        """What the author wrote, user-defined strings included."""
        return self.program.metadata

    @property
    def specification_version(self) -> int:
        """Of the Core ML format: 6 is iOS 15, ... 9 is iOS 18, 10 is iOS 26."""
        return int(self.program.package.model.specificationVersion)

    def signature(self, function: str | None = None) -> Signature:
        """Inputs, outputs and states of a function, the default one if None; UsageError for an unknown one."""
        name = function or self.program.package.default_function
        if name not in self.functions:
            raise UsageError("function of the model", got=name, wanted=list(self.functions))
        if name not in self._signatures:
            self._signatures[name] = read_signature(self.program.package, name)
        return self._signatures[name]

    def make_state(self, function: str | None = None) -> ModelState:
        """Fresh states, zeros; functions with the same states may share them."""
        self.signature(function)
        return ModelState(self.program.make_state(function).arrays)

    @overload
    def predict(
        self, data: Mapping[str, Any], state: State | None = None, *, function: str | None = None,
        precision: str = "fp32", seed: int | None = None, watch: Watch | None = None,
    ) -> dict[str, Any]: ...  # fmt: skip
    @overload
    def predict(
        self, data: Sequence[Mapping[str, Any]], state: None = None, *, function: str | None = None,
        precision: str = "fp32", seed: int | None = None, watch: Watch | None = None,
    ) -> list[dict[str, Any]]: ...  # fmt: skip
    def predict(
        self,
        data: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        state: State | None = None,
        *,
        function: str | None = None,
        precision: str = "fp32",
        seed: int | None = None,
        watch: Watch | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Runs the model; the same shape of call as coremltools' `MLModel.predict`.

        Args:
            data: input name -> value: an array, or what numpy makes one of; for an image one of Pillow, an array
                [H, W] in gray or [H, W, 3] in red, green, blue, or the program's own [1, C, H, W]. Optional inputs
                may be left out. A list of such dicts is run one after the other.
            state: from make_state(), where the model has states; it is updated. Not with a list.
            function: which one; the default function if None.
            precision: "fp32" computes and keeps fp16 values in fp32; "fp16" rounds each as it is produced, as the
                Neural Engine does.
            seed: of random ops; fixed where it is a number.
            watch: in fp16 it learns which op first overflowed.

        Returns:
            output name -> array of the described type, image of Pillow (an array without Pillow), number, str, or a
            dict of probabilities; a list of these for a list.

        Raises:
            UsageError: an input is missing, unknown, or not what the model allows.
            FormatError: the program has an op that is not known, or is malformed.
        """
        if isinstance(data, Mapping):
            return self._predict(data, state, function, precision, seed, watch)
        if not isinstance(data, list | tuple) or not all(isinstance(d, Mapping) for d in data):
            raise UsageError("inputs of the model", got=type(data).__name__, wanted="a dict, or a list of dicts")
        if state is not None:
            raise UsageError("state", got="one for a list of inputs", wanted="None", hint="call predict for each dict")
        return [self._predict(d, None, function, precision, seed, watch) for d in data]

    def _predict(
        self, data: Mapping[str, Any], state: State | None, function: str | None, precision: str, seed: int | None,
        watch: Watch | None,
    ) -> dict[str, Any]:  # fmt: skip
        signature = self.signature(function)
        tensors = _tensors(signature, data, self.program.limit)
        if signature.states and state is None:
            names = list(signature.states)
            raise UsageError("state", got=None, wanted=f"states {names}", hint="pass state=model.make_state()")
        found = self.program.run(tensors, function, state, precision, watch, seed)
        return {name: as_output(feature, found[name]) for name, feature in signature.outputs.items()}


def _tensors(signature: Signature, data: Mapping[str, Any], limit: Limit) -> dict[str, np.ndarray]:
    """The program's inputs from a caller's; UsageError where one is missing or unknown."""
    needed = [n for n, f in signature.inputs.items() if not f.optional]
    if not set(needed) <= set(data) <= set(signature.inputs):
        wanted = [n if n in needed else f"{n} (optional)" for n in signature.inputs]
        raise UsageError("inputs of the model", got=sorted(data), wanted=wanted)
    tensors = {}
    for name, feature in signature.inputs.items():
        spec = signature.tensors[name]
        if name not in data:
            limit.check(f"default of input {name}", prod(d for d in feature.shape if isinstance(d, int)))
        tensors[name] = as_input(feature, data[name], spec) if name in data else filled(feature, spec)
    return tensors


def load(path: Path | str, max_memory: int | None = None) -> Model:
    """Opens a .mlpackage folder, or a bare .mlmodel file, that holds an ML Program.

    Args:
        path: of the package. The weights of a bare file are looked for beside it, in weights/weight.bin.
        max_memory: bytes that may be spent on expanded constants; None is no limit.

    Raises FormatError where it is not a readable ML Program of specification version 6 to 10.
    """
    return Model(load_program(path, max_memory))
