"""A graph run by onnxruntime, as the kernel of a step."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from satchel.runtime.errors import UsageError
from satchel.runtime.mil.regions import onnx_proto
from satchel.runtime.mil.regions.operands import Graph, Operand
from satchel.runtime.mil.steps import NO_VALUE, Step

KERNELS = ("auto", "numpy")
NOWHERE = -1  # the address of an input that is not bound yet
UNWANTED = ["TransposeOptimizer"]  # it makes a softmax over the last axis one over another, which is slow
FATAL = 4  # onnxruntime's log level: what goes wrong is told by the numpy kernels, which name the op


@cache
def available() -> bool:
    """Whether onnxruntime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def threads_for(kernels: str, threads: int | None = None) -> int:
    """How many threads onnxruntime gets; 0 where it is not to be used, or is not installed.

    UsageError for a word that is not in KERNELS, or a number below 1.
    """
    if kernels not in KERNELS:
        raise UsageError("kernels of the interpreter", got=kernels, wanted=KERNELS)
    if threads is not None and threads < 1:
        raise UsageError("threads of the interpreter", got=threads, wanted="at least 1")
    return (threads or _default_threads()) if kernels == "auto" and available() else 0


def _default_threads() -> int:
    """As many as OMP_NUM_THREADS says, else one for each processor that this process may use."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if said.isdecimal() and int(said):
        return int(said)
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class Session:
    """The steps of a region, run by onnxruntime. Called with the values of `inputs`; gives those of `outputs`.

    Args:
        graph: what the steps were lowered to.
        inputs: (slot, operand, numpy type) of values that differ from call to call.
        constants: bound once, not copied.
        embedded: constants that become part of the graph, where onnxruntime may lay them out anew.
        outputs: (slot, operand).
        members: the steps; they run one by one where onnxruntime cannot run them, so that the error names an op.
        template: slot -> constant.
        threads: for onnxruntime's own pool.
    """

    def __init__(
        self,
        *,
        graph: Graph,
        inputs: Sequence[tuple[int, Operand | None, str]],
        constants: Sequence[Operand],
        embedded: Sequence[Operand],
        outputs: Sequence[tuple[int, Operand]],
        members: Sequence[Step],
        template: Sequence[Any],
        threads: int,
    ) -> None:
        self._ort = importlib.import_module("onnxruntime")
        self._inputs = [(slot, f"s{slot}", np.dtype(dtype)) for slot, _, dtype in inputs]
        self._outputs = [operand.name for _, operand in outputs]
        nodes, small, read = graph.needed(self._outputs)
        constants = [o for o in constants if o.name in read]
        self._slots = [slot for slot, _ in outputs]
        self._members, self._template = members, template
        places = [onnx_proto.value_info(o.name, dtype, o.layout) for _, o, dtype in inputs if o]
        self._laid = [(o.shape, o.layout) for _, o, _ in inputs if o]
        places += [onnx_proto.value_info(o.name, np.asarray(o.constant).dtype.name, o.shape) for o in constants]
        ends = [onnx_proto.value_info(o.name, "float32", o.shape) for _, o in outputs]
        self._embedded = {o.name: self._value(o.constant) for o in embedded}
        tensors = [onnx_proto.external_tensor(o.name, "float32", o.shape) for o in embedded]
        self.model = onnx_proto.model(nodes, small + tensors, places, ends)
        self._fixed = {o.name: self._value(o.constant) for o in constants}
        self._session = self._load(threads)
        self._binding = self._session.io_binding()
        self._lock = Lock()
        self._places = [NOWHERE] * len(self._inputs)
        for name, value in self._fixed.items():
            self._binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")

    def _value(self, array: Any) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))

    def _load(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        # Between two sessions numpy's own threads want the processors.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._embedded:
            options.add_external_initializers(list(self._embedded), list(self._embedded.values()))
        return self._ort.InferenceSession(
            self.model, options, providers=["CPUExecutionProvider"], disabled_optimizers=UNWANTED
        )

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """The results, new arrays."""
        arrays = [np.asarray(v, dtype, order="C") for (_, _, dtype), v in zip(self._inputs, values, strict=True)]
        with self._lock:
            try:
                self._bind(arrays)
                self._session.run_with_iobinding(self._binding)
                return tuple(self._binding.copy_outputs_to_cpu())
            except Exception:  # the bindings raise several kinds, whose text names no op of the program
                self._places = [NOWHERE] * len(self._inputs)
        return self._one_by_one(values)

    def _bind(self, arrays: Sequence[np.ndarray]) -> None:
        """Binds those inputs that lie elsewhere than at the last call: the parts of a state do not."""
        for i, array in enumerate(arrays):
            shape, layout = self._laid[i]
            if array.shape != shape:
                raise ValueError(f"an array of shape {array.shape} for {shape}")
            place = array.__array_interface__["data"][0]
            if place != self._places[i]:
                self._places[i] = place
                self._binding.bind_input(self._inputs[i][1], "cpu", 0, array.dtype.type, layout, place)

    def _one_by_one(self, values: Sequence[Any]) -> tuple[Any, ...]:
        known: dict[int, Any] = {slot: value for (slot, _, _), value in zip(self._inputs, values, strict=True)}
        known[NO_VALUE] = None
        for step in self._members:
            operands = [known[slot] if slot in known else _wide(self._template[slot]) for slot in step.inputs]
            try:
                result = step.kernel(*operands)
            except Exception as error:
                raise ValueError(f"{step.op} '{step.name}': {type(error).__name__}: {error}") from error
            results = result if step.output < 0 else (result,)
            known.update(zip(step.outputs, results, strict=True))
        return tuple(known[slot] for slot in self._slots)


def _wide(constant: Any) -> Any:
    """A constant as numpy's kernels want it."""
    return constant.astype(np.float32) if getattr(constant, "dtype", None) == np.float16 else constant
