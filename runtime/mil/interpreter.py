"""Runs compiled functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.compile import OP_ERRORS
from satchel.runtime.mil.dtypes import BY_NAME, compute_type
from satchel.runtime.mil.precision import OverflowReport, affected, largest, round_fp16
from satchel.runtime.mil.steps import FRAME_SLOT, RNG_SLOT, Executable, Step


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

    def examine(self, function: str, op: str, name: str, inputs: list[Any], outputs: list[np.ndarray]) -> None:
        """Looks at the outputs of an op that may have gone wrong."""
        self.raised = False
        found = None if self.report else affected(outputs, inputs)
        if found:
            kind, count = found
            self.report = OverflowReport(function, op, name, kind, largest(inputs), count)


Observer = Callable[[Step, Sequence[Any], Sequence[Any]], None]


def run(
    executable: Executable,
    inputs: Mapping[str, Any],
    state: State | None = None,
    watch: Watch | None = None,
    seed: int | None = None,
    observe: Observer | None = None,
) -> dict[str, Any]:
    """Runs a function once.

    Args:
        executable: the compiled function.
        inputs: name -> array, every input of the function.
        state: needed where the function has states; it is updated.
        watch: told of overflow, in fp16.
        seed: of the random ops that have none of their own; None takes one from the system.
        observe: called after each step with the step, its inputs and its results; steps in blocks come before the step
            that has them, as often as they run. Arrays may be overwritten later: copy what is to be kept.

    Returns:
        name -> array: floats as float32 in fp32; in fp16 the outputs of type fp16 as float16. A string is a str, the
        probabilities of a classifier are a dict.
    """
    values = list(executable.template)
    _give_inputs(executable, inputs, values)
    _give_states(executable, state, values)
    frame = Frame(executable, values, watch or Watch(), observe)
    values[FRAME_SLOT] = frame
    values[RNG_SLOT] = np.random.default_rng(seed) if executable.random else None
    if executable.precision == "fp32":
        with np.errstate(all="ignore"):
            frame.run(executable.steps)
    else:
        with np.errstate(all="ignore", over="call", invalid="call", divide="call", call=frame.watch):
            _round_inputs(executable, values, frame.watch)
            frame.run(executable.steps)
    for spec, slot in executable.states:
        assert state is not None
        state.arrays[spec.name] = values[slot]
    return {spec.name: _output(executable, spec, values[slot]) for spec, slot in executable.outputs}


@dataclass(slots=True)
class Frame:
    """A call of a function while it runs.

    Attributes:
        values: by slot.
        rounds: that its loops have taken so far.
    """

    executable: Executable
    values: list[Any]
    watch: Watch
    observe: Observer | None
    rounds: int = 0

    def another_round(self) -> int:
        """Counts a round of a loop; FormatError where there were too many."""
        self.rounds += 1
        self.executable.limit.check_rounds(self.rounds)
        return self.rounds

    def run(self, steps: Sequence[Step]) -> None:
        """Runs steps: all of the function, or those of a block."""
        if self.observe is not None:
            self._run_observed(steps, self.observe)
        elif self.executable.precision == "fp32":
            self._run_exact(steps)
        else:
            self._run_rounded(steps)

    def _run_exact(self, steps: Sequence[Step]) -> None:
        step, values = None, self.values
        try:
            for step in steps:
                result = step.kernel(*[values[i] for i in step.inputs])
                if step.output >= 0:
                    values[step.output] = result
                else:
                    _spread(step, result, values)
                for i in step.free:
                    values[i] = None
        except OP_ERRORS as error:
            raise self._failed(step, error) from error

    def _run_rounded(self, steps: Sequence[Step]) -> None:
        step, values = None, self.values
        try:
            for step in steps:
                operands = [values[i] for i in step.inputs]
                result = self._rounded(step, operands)
                if step.output >= 0:
                    values[step.output] = result
                else:
                    _spread(step, result, values)
                for i in step.free:
                    values[i] = None
        except OP_ERRORS as error:
            raise self._failed(step, error) from error

    def _run_observed(self, steps: Sequence[Step], observe: Observer) -> None:
        step, values = None, self.values
        exact = self.executable.precision == "fp32"
        try:
            for step in steps:
                operands = [values[i] for i in step.inputs]
                result = step.kernel(*operands) if exact else self._rounded(step, operands)
                results = (result,) if step.output >= 0 else _parts(step, result)
                for slot, part in zip(step.outputs, results, strict=True):
                    values[slot] = part
                observe(step, operands, results)
                for i in step.free:
                    values[i] = None
        except OP_ERRORS as error:
            raise self._failed(step, error) from error

    def _rounded(self, step: Step, operands: list[Any]) -> Any:
        """The result of a step in fp16; the watch looks at it where something may have gone wrong."""
        result, watch = step.kernel(*operands), self.watch
        if step.rounds:
            result = _rounded(result)
            if step.contraction and not np.isfinite(result.sum()):  # BLAS raises no flags
                watch.raised = True
        if watch.raised:
            watch.examine(self.executable.name, step.op, step.name, operands, _arrays(result))
        return result

    def _failed(self, step: Step | None, error: Exception) -> FormatError:
        assert step is not None
        values = [self.values[i] for i in step.inputs]
        shapes = [list(v.shape) for v in values if isinstance(v, np.ndarray | np.generic)]
        return FormatError(
            f"{step.op} '{step.name}' in {self.executable.name}",
            got=f"{type(error).__name__}: {error}, with inputs of shapes {shapes}",
            hint="the program or its inputs do not fit the op's definition",
        )


def _rounded(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_rounded(r) for r in result)
    return round_fp16(result) if result.dtype == np.float32 else result


def _arrays(result: Any) -> list[np.ndarray]:
    parts = result if isinstance(result, tuple) else (result,)
    return [np.asarray(r) for r in parts if isinstance(r, np.ndarray | np.generic) and r.dtype.kind == "f"]


def _parts(step: Step, result: Any) -> tuple[Any, ...]:
    parts = result if isinstance(result, tuple) else (result,)
    if len(parts) != len(step.outputs):
        raise ValueError(f"{len(parts)} results for {len(step.outputs)} outputs")
    return parts


def _spread(step: Step, result: Any, values: list[Any]) -> None:
    for slot, part in zip(step.outputs, _parts(step, result), strict=True):
        values[slot] = part


def _give_inputs(executable: Executable, inputs: Mapping[str, Any], values: list[Any]) -> None:
    names = {spec.name for spec, _ in executable.inputs}
    if names != set(inputs):
        raise UsageError(f"inputs of {executable.name}", got=sorted(inputs), wanted=sorted(names))
    for spec, slot in executable.inputs:
        values[slot] = _as_input(spec, inputs[spec.name])


def _round_inputs(executable: Executable, values: list[Any], watch: Watch) -> None:
    """Inputs of type fp16 are rounded too, and may overflow as any op may."""
    for spec, slot in executable.inputs:
        if spec.dtype == "float16":
            given, values[slot] = values[slot], round_fp16(values[slot])
            if watch.raised:
                watch.examine(executable.name, "input", spec.name, [given], [values[slot]])


def _fits(shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> bool:
    return len(shape) == len(wanted) and all(isinstance(w, str) or w == n for w, n in zip(wanted, shape, strict=True))


def _as_input(spec: TensorSpec, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if not _fits(array.shape, spec.shape):
        raise UsageError(f"shape of input {spec.name}", got=list(array.shape), wanted=list(spec.shape))
    dtype = compute_type(BY_NAME[spec.dtype])
    if array.dtype.kind not in "fiub" or (dtype.kind in "iu" and array.dtype.kind == "f"):
        raise UsageError(f"type of input {spec.name}", got=array.dtype.name, wanted=spec.dtype)
    return array.astype(dtype, copy=False)


def _give_states(executable: Executable, state: State | None, values: list[Any]) -> None:
    if not executable.states:
        return
    names = sorted(spec.name for spec, _ in executable.states)
    if state is None or not set(names) <= set(state.arrays):
        got = None if state is None else sorted(state.arrays)
        raise UsageError(f"states of {executable.name}", got=got, wanted=names, hint="pass state=program.make_state()")
    for spec, slot in executable.states:
        values[slot] = array = state.arrays[spec.name]
        if array.shape != spec.shape and not _fits(array.shape, spec.shape):
            raise UsageError(f"shape of state {spec.name}", got=list(array.shape), wanted=list(spec.shape))


def make_state(executable: Executable) -> State:
    """Zeros for every state of the function."""
    return zeros(spec for spec, _ in executable.states)


def zeros(states: Iterable[TensorSpec]) -> State:
    """Fresh states of these shapes and types."""
    arrays = {}
    for spec in states:
        if any(isinstance(d, str) for d in spec.shape):
            raise FormatError(f"shape of state {spec.name}", got=spec.shape, wanted="known dimensions")
        arrays[spec.name] = np.zeros([int(d) for d in spec.shape], compute_type(BY_NAME[spec.dtype]))
    return State(arrays)


def _output(executable: Executable, spec: TensorSpec, value: Any) -> Any:
    if not isinstance(value, np.ndarray | np.generic):
        return value  # a string, a dictionary
    array = np.array(value) if spec.name in executable.copied else np.asarray(value)
    if executable.precision == "fp16" and spec.dtype == "float16":
        return array.astype(np.float16)
    return array
