"""Runs compiled functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.compile import OP_ERRORS, Executable, Step
from satchel.runtime.mil.dtypes import BY_NAME, compute_type
from satchel.runtime.mil.precision import OverflowReport, affected, largest, round_fp16


@dataclass
class State:
    """The states of a function between calls.

    Attributes:
        arrays: name -> values; fp16 states are held as float32. A call may replace or overwrite them.
    """

    arrays: dict[str, np.ndarray]

    def copy(self) -> State:
        """An independent copy."""
        return State({n: a.copy() for n, a in self.arrays.items()})


class Watch:
    """Finds the first op that overflows or makes a NaN, over one or several calls in fp16.

    Attributes:
        report: about that op, or None while there was none.
    """

    def __init__(self) -> None:
        self.report: OverflowReport | None = None
        self.raised = False

    def __call__(self, kind: str, flag: int) -> None:
        """Called by numpy when a floating-point flag is raised."""
        self.raised = True

    def examine(self, function: str, step: Step, inputs: list[Any], outputs: list[np.ndarray]) -> None:
        """Looks at the outputs of a step that may have gone wrong."""
        self.raised = False
        found = None if self.report else affected(outputs, inputs)
        if found:
            kind, count = found
            self.report = OverflowReport(function, step.op, step.name, kind, largest(inputs), count)


def run(
    executable: Executable, inputs: Mapping[str, Any], state: State | None, watch: Watch | None
) -> dict[str, np.ndarray]:
    """Runs a function once.

    Args:
        executable: the compiled function.
        inputs: name -> array, every input of the function.
        state: needed where the function has states; it is updated.
        watch: told of overflow, in fp16.

    Returns:
        name -> array: floats as float32 in fp32; in fp16 the outputs of type fp16 as float16.
    """
    values = list(executable.template)
    _give_inputs(executable, inputs, values)
    _give_states(executable, state, values)
    if executable.precision == "fp32":
        with np.errstate(all="ignore"):
            _run_exact(executable, values)
    else:
        watch = watch or Watch()
        with np.errstate(all="ignore", over="call", invalid="call", divide="call", call=watch):
            _run_rounded(executable, values, watch)
    for spec, slot in executable.states:
        assert state is not None
        state.arrays[spec.name] = values[slot]
    return {spec.name: _output(executable, spec, values[slot]) for spec, slot in executable.outputs}


def _run_exact(executable: Executable, values: list[Any]) -> None:
    step = None
    try:
        for step in executable.steps:
            result = step.kernel(*[values[i] for i in step.inputs])
            if step.output >= 0:
                values[step.output] = result
            else:
                _spread(step, result, values)
            for i in step.free:
                values[i] = None
    except OP_ERRORS as error:
        raise _failed(executable, step, values, error) from error


def _run_rounded(executable: Executable, values: list[Any], watch: Watch) -> None:
    step = None
    try:
        for step in executable.steps:
            operands = [values[i] for i in step.inputs]
            result = step.kernel(*operands)
            if step.rounds:
                result = _rounded(result)
                if step.contraction and not np.isfinite(result.sum()):  # BLAS raises no flags
                    watch.raised = True
            if watch.raised:
                watch.examine(executable.name, step, operands, _arrays(result))
            if step.output >= 0:
                values[step.output] = result
            else:
                _spread(step, result, values)
            for i in step.free:
                values[i] = None
    except OP_ERRORS as error:
        raise _failed(executable, step, values, error) from error


def _rounded(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_rounded(r) for r in result)
    return round_fp16(result) if result.dtype == np.float32 else result


def _arrays(result: Any) -> list[np.ndarray]:
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(r) for r in parts if np.asarray(r).dtype.kind == "f"]


def _spread(step: Step, result: Any, values: list[Any]) -> None:
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) != len(step.outputs):
        raise ValueError(f"{len(parts)} results for {len(step.outputs)} outputs")
    for slot, part in zip(step.outputs, parts, strict=True):
        values[slot] = part


def _failed(executable: Executable, step: Step | None, values: list[Any], error: Exception) -> FormatError:
    assert step is not None
    shapes = [list(np.shape(values[i])) for i in step.inputs if values[i] is not None]
    return FormatError(
        f"{step.op} '{step.name}' in {executable.name}",
        got=f"{type(error).__name__}: {error}, with inputs of shapes {shapes}",
        hint="the program or its inputs do not fit the op's definition",
    )


def _give_inputs(executable: Executable, inputs: Mapping[str, Any], values: list[Any]) -> None:
    names = {spec.name for spec, _ in executable.inputs}
    if names != set(inputs):
        raise UsageError(f"inputs of {executable.name}", got=sorted(inputs), wanted=sorted(names))
    for spec, slot in executable.inputs:
        values[slot] = _as_input(spec, inputs[spec.name], executable.precision == "fp16")


def _as_input(spec: TensorSpec, value: Any, rounds: bool) -> np.ndarray:
    array = np.asarray(value)
    fits = array.ndim == len(spec.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise UsageError(f"shape of input {spec.name}", got=list(array.shape), wanted=list(spec.shape))
    dtype = compute_type(BY_NAME[spec.dtype])
    if array.dtype.kind not in "fiub" or (dtype.kind in "iu" and array.dtype.kind == "f"):
        raise UsageError(f"type of input {spec.name}", got=array.dtype.name, wanted=spec.dtype)
    array = array.astype(dtype, copy=False)
    return round_fp16(array) if rounds and spec.dtype == "float16" else array


def _give_states(executable: Executable, state: State | None, values: list[Any]) -> None:
    if not executable.states:
        return
    names = sorted(spec.name for spec, _ in executable.states)
    if state is None or not set(names) <= set(state.arrays):
        got = None if state is None else sorted(state.arrays)
        raise UsageError(f"states of {executable.name}", got=got, wanted=names, hint="pass state=program.make_state()")
    for spec, slot in executable.states:
        values[slot] = state.arrays[spec.name]


def make_state(executable: Executable) -> State:
    """Zeros for every state of the function."""
    arrays = {}
    for spec, _ in executable.states:
        if any(isinstance(d, str) for d in spec.shape):
            raise FormatError(f"shape of state {spec.name}", got=spec.shape, wanted="known dimensions")
        arrays[spec.name] = np.zeros([int(d) for d in spec.shape], compute_type(BY_NAME[spec.dtype]))
    return State(arrays)


def _output(executable: Executable, spec: TensorSpec, value: Any) -> np.ndarray:
    array = np.array(value) if spec.name in executable.copied else np.asarray(value)
    if executable.precision == "fp16" and spec.dtype == "float16":
        return array.astype(np.float16)
    return array
