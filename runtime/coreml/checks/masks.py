"""Minus infinity among the constants of a mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.subject import Answer, NotJudged, Subject, at
from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp
from satchel.runtime.mil.dtypes import widen
from satchel.runtime.mil.values import constant_shape, reader

TABLES = ("lut", "nonzero_data", "data", "source_val")
FP16_MINUS_INFINITY = 0xFC00
CHUNK = 1 << 20
SEARCHED = ("float16", "float32", "float64", "bfloat16")


def minus_infinity(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Constants below what fp16 holds that reach a softmax (as severe as the rule says) or another op (a warning)."""
    for function in subject.functions:
        known: dict[Any, float] = {}
        for op in function.ops:
            if op.type in rule.names("ops"):
                yield from _lowest_of(function, op, rule, known)
        yield from _masks_of_the_app(function, rule)


def _lowest_of(function: FunctionSurvey, op: SurveyedOp, rule: Rule, known: dict[Any, float]) -> Iterator[Answer]:
    """A finding for each constant argument of an op that goes too low."""
    for parameter, values in op.arguments.items():
        for value in values:
            key = value if isinstance(value, str) else id(value)
            if key not in known:
                known[key] = lowest(function, value)
            if known[key] < rule.number("lowest"):
                yield _finding(function, op, rule, parameter, known[key])


def _finding(function: FunctionSurvey, op: SurveyedOp, rule: Rule, parameter: str, least: float) -> Answer:
    value = "minus infinity" if np.isneginf(least) else f"{least:.3g}, which is minus infinity in fp16,"
    end = _end(function, op, rule)
    if end is None:
        return at(op, f"{value} as {parameter}; no softmax that it reaches was found").as_severe_as("warning")
    return at(op, f"{value} as {parameter} reaches {end}")


def _end(function: FunctionSurvey, op: SurveyedOp, rule: Rule) -> str | None:
    """The softmax that an op's results reach."""
    ends = rule.names("ends")
    if op.type in ends:
        return f"{op.type} '{op.name}'"
    through = rule.names("through")
    for name in op.outputs:
        for user in function.descendants(name, through):
            if user.type in ends:
                return f"{user.type} '{user.name}'"
    return None


def _masks_of_the_app(function: FunctionSurvey, rule: Rule) -> Iterator[Answer]:
    """Inputs that reach a softmax as a mask does: what they hold is the app's doing."""
    through, ends = rule.names("through"), rule.names("ends")
    for name, (dtype, _) in function.inputs.items():
        if dtype.is_float and any(user.type in ends for user in function.descendants(name, through)):
            yield NotJudged(
                f"input {name} of {function.name} reaches a softmax as a mask does: its values are the app's"
            )


def lowest(function: FunctionSurvey, value: Any) -> float:
    """The lowest number of a float constant, or of the table that a compressed one is made of; 0 for anything else."""
    proto = function.constant(value)
    if proto is not None:
        return _lowest_in(function, proto)
    maker = function.makers.get(value)
    if maker is None or not maker.is_compression:
        return 0.0
    tables = [v for n in TABLES for v in maker.arguments.get(n, ())]
    return min((lowest(function, v) for v in tables), default=0.0)


def _lowest_in(function: FunctionSurvey, proto: Any) -> float:
    """Large fp16 constants are only searched for minus infinity, the one number that is too low for them."""
    if proto.type.WhichOneof("type") != "tensorType":
        return 0.0
    dtype, _ = constant_shape(proto)
    if dtype.name not in SEARCHED:
        return 0.0
    content = np.asarray(reader(function.package, proto)()).reshape(-1)
    if dtype.name == "float16" and content.size:
        bits = content.view(np.uint16)
        parts = (bits[i : i + CHUNK] for i in range(0, bits.size, CHUNK))
        return float("-inf") if any((part == FP16_MINUS_INFINITY).any() for part in parts) else 0.0
    return float(np.nanmin(widen(content, dtype), initial=0.0)) if content.size else 0.0
