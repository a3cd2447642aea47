"""Shapes that the engine handles badly or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.subject import Answer, Found, NotJudged, Subject, at, shown
from satchel.runtime.coreml.survey import FunctionSurvey, Shape, SurveyedOp, elements
from satchel.runtime.mil.dtypes import DType

CHANNEL_AXES = 2  # N and C come first, D, H and W after them


def _values(subject: Subject) -> Iterator[tuple[Found, DType, Shape]]:
    """(where, element type, shape) of every value that a program has as it runs."""
    for function in subject.functions:
        for name, (dtype, shape) in function.inputs.items():
            yield Found(f"input {name}", function.name, "input", name, value=name), dtype, shape
    for function, op in subject.computing():
        for name in op.outputs:
            if name in function.types:
                yield replace(at(op, op.type), value=name), *function.types[name]


def padded_last_axis(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Values whose last axis of 1 wastes much memory."""
    for where, dtype, shape in _values(subject):
        if not shape or shape[-1] != 1 or not dtype.is_float:
            continue
        plain = dtype.nbytes(elements(shape))
        taken = elements(shape) * int(rule.number("pad_bytes"))
        if taken - plain >= rule.number("least_wasted_bytes"):
            what = f"{shown(shape)} in {dtype.name} takes {taken / 1e6:.1f} MB, {taken // plain} times its size"
            yield replace(where, what=what)


def axis_cap(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Axes longer than the engine can address."""
    unknown = 0
    for where, _, shape in _values(subject):
        unknown += None in shape
        for axis, size in enumerate(shape):
            cap = _cap(axis, len(shape), rule)
            if size is not None and size > cap:
                yield replace(where, what=f"axis {axis} of {shown(shape)} is {size}, at most {cap:.0f}")
                break
    if unknown:
        yield NotJudged(f"{unknown} values have axes whose size is not known before the program runs")


def _cap(axis: int, rank: int, rule: Rule) -> int | float:
    """The cap of an axis: the last two are H and W, with five axes the last three D, H and W."""
    spatial = 3 if rank >= 5 else 2
    is_spatial = rank > 1 and axis >= rank - spatial and not (rank >= 4 and axis < CHANNEL_AXES)
    return rule.number("spatial" if is_spatial else "channels")


def rank(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Values with more axes than Core ML has."""
    for where, _, shape in _values(subject):
        if len(shape) > rule.number("most"):
            yield replace(where, what=f"{len(shape)} axes: {shown(shape)}")


def arg_reduce_axis(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Arg-reductions of a long axis."""
    for function, op in subject.each(rule.names("ops")):
        size = _reduced(function, op)
        if size is None:
            yield NotJudged(f"the axis that {op.type} '{op.name}' reduces is not known before the program runs")
        elif size > rule.number("most"):
            yield at(op, f"reduces an axis of {size}, at most {rule.number('most')}")


def _reduced(function: FunctionSurvey, op: SurveyedOp) -> int | None:
    """Size of the axis that an op reduces."""
    x = function.argument_type(op, "x")
    axis = function.integers(op, "axis") or (-1,)
    return x[1][axis[0]] if x and -len(x[1]) <= axis[0] < len(x[1]) else None


def softmax_axis(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Large softmaxes over another axis than the channels."""
    for function, op in subject.each(("softmax",)):
        x, axis = function.argument_type(op, "x"), function.integers(op, "axis") or (-1,)
        if x is None or len(x[1]) < 3 or elements(x[1]) < rule.number("elements"):
            continue
        if axis[0] % len(x[1]) != len(x[1]) - 3:
            yield at(op, f"over axis {axis[0]} of {shown(x[1])}")


def dynamic_shapes(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Inputs of no fixed shape."""
    for function in subject.functions:
        described = {f.name: f.type for f in subject.package.description(function.name).input}
        for name, (_, shape) in function.inputs.items():
            count = _enumerated(described.get(name))
            if count is None and None in shape:
                yield Found(f"input {name} has the shape {shown(shape)}", function.name, "input", name)
            elif count is not None and count > rule.number("most_enumerated"):
                yield Found(f"input {name} has {count} enumerated shapes", function.name, "input", name)


def _enumerated(feature_type: object) -> int | None:
    """How many shapes an input enumerates; None where it does not."""
    for kind, sizes in (("arrayType", "enumeratedShapes"), ("imageType", "enumeratedSizes")):
        feature = getattr(feature_type, kind, None)
        if feature is not None and feature.WhichOneof("flexibility") == sizes:
            listed = getattr(feature, sizes)
            return len(listed.shapes if kind == "arrayType" else listed.sizes)
    return None
