"""A loaded ML Program, ready to run on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.compile import Executable, compile_function
from satchel.runtime.mil.constants import Pool
from satchel.runtime.mil.interpreter import Observer, State, Watch, run, zeros
from satchel.runtime.mil.limits import Limit
from satchel.runtime.mil.overflow import located
from satchel.runtime.mil.package import Package, open_package
from satchel.runtime.mil.precision import OverflowReport, check_precision
from satchel.runtime.mil.regions import threads_for
from satchel.runtime.mil.values import is_state, spec


class Program:
    """An ML Program.

    Args:
        package: where it was read from.
        max_memory: bytes that may be spent on expanded constants; the rest are expanded again at each use. None is no
            limit. A single value may take so much too, where that is more than what is allowed anyway (limits.py).
        kernels: "auto" hands runs of fp32 ops to onnxruntime where it is installed and that pays; "numpy" never does.
            What is observed, and fp16, which rounds after every op, is always run by numpy, op by op.
        threads: that onnxruntime may use; by default what OMP_NUM_THREADS says, or one for each processor.

    Attributes:
        limit: how large a value may become, and how long loops may run.

    Functions are compiled when they first run, and share their constants.
    """

    def __init__(
        self, package: Package, max_memory: int | None = None, kernels: str = "auto", threads: int | None = None
    ) -> None:
        self.package = package
        self.limit = Limit()
        self.limit.allow(weights=package.weight_bytes, wanted=max_memory or 0)
        self._pool = Pool(max_memory)
        self._threads = threads_for(kernels, threads)
        self._compiled: dict[tuple[str, str, int], Executable] = {}

    @property
    def functions(self) -> tuple[str, ...]:
        """Names of the functions, the default one first."""
        return self.package.functions

    @property
    def metadata(self) -> dict[str, str]:
        """What the author wrote, user-defined strings included."""
        return self.package.metadata

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the default function."""
        return self.signature()[0]

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the default function."""
        return self.signature()[1]

    @cached_property
    def states(self) -> tuple[TensorSpec, ...]:
        """States of the default function."""
        return self.signature()[2]

    def signature(
        self, function: str | None = None
    ) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """(inputs, outputs, states) of a function, the default one if none is named."""
        name = function or self.package.default_function
        named = self.package.function(name).inputs
        inputs = tuple(spec(n) for n in named if not is_state(n.type))
        states = tuple(spec(n) for n in named if is_state(n.type))
        return inputs, _outputs(self.package, name), states

    def run(
        self,
        inputs: Mapping[str, Any],
        function: str | None = None,
        state: State | None = None,
        precision: str = "fp32",
        watch: Watch | None = None,
        seed: int | None = None,
        observe: Observer | None = None,
    ) -> dict[str, Any]:
        """Runs a function once.

        Args:
            inputs: name -> array (or what numpy makes one of), every input, optional ones too.
            function: which one; the default function if None.
            state: from make_state(), where the function has states; updated.
            precision: "fp32" computes and keeps every fp16 value in fp32; "fp16" rounds every fp16 value as it is
                produced, products accumulated in fp32.
            watch: in fp16 it learns which op first overflowed.
            seed: makes the random ops repeat; those with a seed of their own always do.
            observe: called after each op, see interpreter.run.

        Returns:
            name -> array; in "fp32" every float output is float32, in "fp16" the fp16 ones are float16. A string is a
            str, the probabilities of a classifier are a dict.

        Raises:
            UsageError: an input is missing, unknown, or of the wrong shape or type.
            FormatError: the program has an op that is not known, or is malformed.
        """
        self.limit.allow(inputs=sum(getattr(value, "nbytes", 0) for value in inputs.values()))
        threads = self._threads if precision == "fp32" and observe is None else 0
        executable, fresh = self.executable(function, precision, threads), watch is not None and watch.report is None
        found = run(executable, inputs, state, watch, seed, observe)
        if watch is not None and fresh and precision == "fp16":
            watch.report = self.overflow(executable.name, watch)
        return found

    def overflow(self, function: str, watch: Watch) -> OverflowReport | None:
        """What a watch of a run in fp16 has seen first, with its layer and what helps; constants come before ops."""
        constants = self._pool.overflows if watch.report is None or watch.report.op != "input" else {}
        return located(watch.report, constants, self.package, function)

    def make_state(self, function: str | None = None) -> State:
        """Fresh states, zeros; functions with the same states may share them. Nothing is compiled for it."""
        states = self.signature(function)[2]
        for each in states:
            self.limit.check_spec(f"state {each.name}", each)
        return zeros(states)

    def executable(self, function: str | None = None, precision: str = "fp32", threads: int = 0) -> Executable:
        """The compiled function; compiled at the first call. With threads, runs of ops are one step for onnxruntime."""
        key = (function or self.package.default_function, precision, threads)
        if key not in self._compiled:
            known = check_precision(precision)
            self._compiled[key] = compile_function(self.package, key[0], known, self._pool, self.limit, threads)
        return self._compiled[key]


def _outputs(package: Package, function: str) -> tuple[TensorSpec, ...]:
    """Outputs by the types that the ops which make them declare."""
    block = package.block(function)
    types = {o.name: o for op in block.operations for o in op.outputs} | {i.name: i for i in block.inputs}
    types |= {i.name: i for i in package.function(function).inputs}
    return tuple(spec(types[name]) for name in block.outputs if name in types)


def load(path: Path | str, max_memory: int | None = None, kernels: str = "auto", threads: int | None = None) -> Program:
    """Opens a .mlpackage folder, or a .mlmodel file, that holds an ML Program.

    Args:
        path: of the package.
        max_memory: bytes that may be spent on expanded constants; None is no limit.
        kernels: "auto" or "numpy", see Program.
        threads: that onnxruntime may use.

    Raises FormatError where it is not a readable ML Program of specification version 6 to 10.
    """
    return Program(open_package(Path(path)), max_memory, kernels, threads)
