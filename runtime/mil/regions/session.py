"""A graph run by onnxruntime, as the kernel of a step."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from satchel.runtime.errors import UsageError
from satchel.runtime.mil.regions import onnx_proto
from satchel.runtime.mil.regions.operands import Graph, Operand
from satchel.runtime.mil.steps import NO_VALUE, Step

KERNELS = ("auto", "numpy")
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
        places = [onnx_proto.value_info(o.name, dtype, o.shape) for _, o, dtype in inputs if o]
        places += [onnx_proto.value_info(o.name, np.asarray(o.constant).dtype.name, o.shape) for o in constants]
        ends = [onnx_proto.value_info(o.name, "float32", o.shape) for _, o in outputs]
        self._embedded = {o.name: self._value(o.constant) for o in embedded}
        tensors = [onnx_proto.external_tensor(o.name, "float32", o.shape) for o in embedded]
        self.model = onnx_proto.model(nodes, small + tensors, places, ends)
        self._fixed = {o.name: self._value(o.constant) for o in constants}
        self._session = self._load(threads)

    def _value(self, array: Any) -> Any:
        return self._ort.OrtValue.ortvalue_from_numpy(np.asarray(array, order="C"))

    def _load(self, threads: int) -> Any:
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = FATAL
        if self._embedded:
            options.add_external_initializers(list(self._embedded), list(self._embedded.values()))
        return self._ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])

    def __call__(self, *values: Any) -> tuple[Any, ...]:
        """The results, new arrays."""
        feed = dict(self._fixed)
        for (_, name, dtype), value in zip(self._inputs, values, strict=True):
            feed[name] = self._value(np.asarray(value, dtype))
        try:
            found = self._session.run_with_ort_values(self._outputs, feed)
        except Exception:  # the bindings raise several kinds, whose text names no op of the program
            return self._one_by_one(values)
        return tuple(value.numpy() for value in found)

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
