"""What a check is given, and what it may answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from satchel.devices.errors import DeviceError
from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.target import Target
from satchel.runtime.coreml.survey import FunctionSurvey, Shape, SurveyedOp
from satchel.runtime.mil.package import Package


@dataclass(frozen=True)
class Subject:
    """A package and what it is meant for.

    Attributes:
        package, functions: what is judged.
        target: for which device or system.
        rules: by id.
    """

    package: Package
    functions: tuple[FunctionSurvey, ...]
    target: Target
    rules: Mapping[str, Rule]

    def rule(self, identifier: str) -> Rule:
        """A rule by its id, for a check that needs another one's lists; DeviceError where it is not among them."""
        if identifier not in self.rules:
            raise DeviceError("rule that a check needs", got=sorted(self.rules), wanted=identifier)
        return self.rules[identifier]

    def weight_files(self) -> dict[str, int]:
        """Bytes of every weight file that the program names."""
        names = {name: None for function in self.functions for name in function.weight_files()}
        return {name: self.package.blob_file(name).nbytes for name in names}

    def each(self, names: Iterable[str]) -> Iterator[tuple[FunctionSurvey, SurveyedOp]]:
        """Every op of the named types, with its function."""
        wanted = set(names)
        yield from ((f, op) for f in self.functions for op in f.ops if op.type in wanted)

    def computing(self) -> Iterator[tuple[FunctionSurvey, SurveyedOp]]:
        """Every op that runs, with its function."""
        yield from ((f, op) for f in self.functions for op in f.ops if op.computes)


@dataclass(frozen=True)
class Found:
    """A place where a rule is broken.

    Attributes:
        what: was found there.
        function, op_type, op: where; "" where it is about more than one.
        severity: other than the rule's own, or "".
        ops: all that it is about, one op or several of a type; empty where it is about inputs or whole programs.
        value: name of the input, output or result that it is about; "" where it is about none.
    """

    what: str
    function: str = ""
    op_type: str = ""
    op: str = ""
    severity: str = ""
    ops: tuple[SurveyedOp, ...] = field(default=(), compare=False, repr=False)
    value: str = field(default="", compare=False)

    def as_severe_as(self, severity: str) -> Found:
        """The same with a severity of its own."""
        return replace(self, severity=severity)


@dataclass(frozen=True)
class NotJudged:
    """A question that the package and the target do not answer.

    Attributes:
        reason: why not.
    """

    reason: str


Answer = Found | NotJudged
Check = Callable[[Subject, Rule], Iterable[Answer]]


def at(op: SurveyedOp, what: str) -> Found:
    """Something found at an op."""
    return Found(what, op.function, op.type, op.name, ops=(op,))


def shown(shape: Shape) -> str:
    """Such as "1 x 64 x ? x 3"."""
    return " x ".join("?" if d is None else str(d) for d in shape) or "a scalar"
