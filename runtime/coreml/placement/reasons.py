"""Why ops do not run on the engine: findings of the checks whose rules say what leaves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile

from satchel.devices.rulebook import NO_CHECK, Rule
from satchel.runtime.coreml.checks.judge import CHECKS, applies
from satchel.runtime.coreml.checks.report import Unjudged
from satchel.runtime.coreml.checks.subject import Found, NotJudged, Subject
from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp

ORDER = {"program": 0, "function": 1, "value": 2, "op": 2}
"""What rules say leaves -> when they decide, the widest first; those about runs of ops come after all others."""
STATE, OUTPUT = "state", "output"


@dataclass(frozen=True)
class Reason:
    """Why an op does not run on the engine.

    Attributes:
        rule: that is broken.
        what: was found.
    """

    rule: Rule
    what: str


Reasons = dict[int, list[Reason]]
"""By the id of a SurveyedOp; the first reason decides."""


def find_reasons(subject: Subject) -> tuple[Reasons, tuple[Unjudged, ...]]:
    """Why ops leave the engine, and what could not be told."""
    rules = [r for r in subject.rules.values() if r.leaves in ORDER and r.check != NO_CHECK]
    reasons: Reasons = {}
    unjudged: dict[Unjudged, None] = {}
    for rule in sorted(rules, key=lambda r: ORDER[r.leaves]):
        if not applies(rule, subject.target):
            continue
        for answer in CHECKS[rule.id](subject, rule):
            if isinstance(answer, NotJudged):
                unjudged[Unjudged(rule.id, answer.reason)] = None
                continue
            for op in affected(subject, rule.leaves, answer):
                known = reasons.setdefault(id(op), [])
                if rule.id not in (reason.rule.id for reason in known):
                    known.append(Reason(rule, answer.what))
    return reasons, tuple(unjudged)


def affected(subject: Subject, leaves: str, found: Found) -> Iterator[SurveyedOp]:
    """The ops that leave the engine because of a finding."""
    for function in subject.functions:
        if leaves == "program" or (leaves == "function" and _concerns(function, found)):
            yield from (op for op in function.ops if op.computes)
        elif leaves in ("op", "value") and function.name == found.function:
            yield from _running(function, found.ops)
            if leaves == "value" and found.value:
                yield from _at_value(function, found)


def _concerns(function: FunctionSurvey, found: Found) -> bool:
    """Whether a finding is about a function; one about a state is about every function that has the state."""
    return found.function == function.name or (found.op_type == STATE and found.op in function.states)


def _running(function: FunctionSurvey, ops: Iterable[SurveyedOp]) -> Iterator[SurveyedOp]:
    """The ops themselves with those in their blocks; for those that expand a weight, the ops that read the weight."""
    waiting, seen = list(ops), set()
    while waiting:
        op = waiting.pop(0)
        if id(op) in seen:
            continue
        seen.add(id(op))
        if op.computes:
            yield op
            waiting += _inside(function, op)
        else:
            waiting += [reader for name in op.outputs for reader in function.readers.get(name, [])]


def _inside(function: FunctionSurvey, op: SurveyedOp) -> list[SurveyedOp]:
    """The ops of its blocks that run: they come right before it."""
    if not op.proto.blocks:
        return []
    place = next(i for i, other in enumerate(function.ops) if other is op)
    before = takewhile(lambda other: other.depth > op.depth, reversed(function.ops[:place]))
    return [other for other in before if other.computes]


def _at_value(function: FunctionSurvey, found: Found) -> Iterator[SurveyedOp]:
    """The ops that make or read a value; of an output of the function only the one that makes it."""
    maker = function.makers.get(found.value)
    if maker is not None and maker.computes:
        yield maker
    if found.op_type != OUTPUT:
        yield from (reader for reader in function.readers.get(found.value, []) if reader.computes)
