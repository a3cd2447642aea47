"""What Core ML needs of a package before it runs anything: versions, ops, types, and a description that fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.subject import Answer, Found, NotJudged, Subject, at
from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp
from satchel.runtime.coreml.versions import OPSET_IOS, SPECIFICATION_IOS, system_name

FLOAT16_ARRAY, INT8_ARRAY = 65552, 131080
OP_LISTS = ("ios15", "ios16", "ios17", "ios18")


def _unknown_system(subject: Subject) -> Iterator[Answer]:
    if not subject.target.ios:
        yield NotJudged("the target's system is not known: name one such as iOS17, or a device")


def specification_version(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Versions that the target does not read."""
    yield from _unknown_system(subject)
    target = subject.target.ios
    version = subject.package.model.specificationVersion
    needed = SPECIFICATION_IOS.get(version, 0)
    if target and needed > target:
        yield Found(
            f"specification version {version} needs {system_name(needed)}; the target has {system_name(target)}"
        )
    for function in subject.functions:
        needed = OPSET_IOS.get(function.opset, 0)
        if not needed:
            yield NotJudged(f"opset {function.opset!r} of {function.name} is not known")
        elif target and needed > target:
            yield Found(f"opset {function.opset} needs {system_name(needed)}", function.name)


def first_ios(rule: Rule) -> dict[str, int]:
    """Op -> the iOS version that brought it."""
    return {name: int(listed.removeprefix("ios")) for listed in OP_LISTS for name in rule.names(listed)}


def op_of_later_opset(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Ops newer than the opset that their function declares."""
    first = first_ios(subject.rule("CM03"))
    for function in subject.functions:
        declared = OPSET_IOS.get(function.opset)
        for op in function.ops:
            if declared and first.get(op.type, 0) > declared:
                yield at(op, f"needs the opset of iOS {first[op.type]}; the function declares {function.opset}")


def op_missing_on_target(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Ops newer than the target."""
    yield from _unknown_system(subject)
    first, target = first_ios(rule), subject.target.ios
    for function in subject.functions:
        for op in function.ops:
            if target and first.get(op.type, 0) > target:
                yield at(op, f"needs {system_name(first[op.type])}")


def unknown_op(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Ops that no opset has."""
    first = first_ios(subject.rule("CM03"))
    for function in subject.functions:
        yield from (at(op, "no opset has this op") for op in function.ops if op.type not in first)


def late_element_types(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Constants of types that the target, or the opset, does not have."""
    late = set(rule.names("ios18"))
    for function in subject.functions:
        limit = min(OPSET_IOS.get(function.opset, 18), subject.target.ios or 18)
        if limit >= 18:
            continue
        for op in function.ops:
            names = sorted(set(_constant_types(function, op)) & late)
            if names and op.is_compression:
                yield at(op, f"{', '.join(names)} needs iOS 18, and only iOS {limit} is asked for")


def _constant_types(function: FunctionSurvey, op: SurveyedOp) -> Iterator[str]:
    for values in op.arguments.values():
        for value in values:
            found = function.type_of(value)
            if found is not None:
                yield found[0].name


def late_features(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Features of the interface that the target does not have."""
    yield from _unknown_system(subject)
    for feature, what in _features(subject):
        needed = int(rule.number(feature))
        if subject.target.ios and needed > subject.target.ios:
            yield Found(f"{what} needs {system_name(needed)}; the target has {system_name(subject.target.ios)}")


def _features(subject: Subject) -> Iterator[tuple[str, str]]:
    """(name in the rule, what it is) for every feature in use."""
    if len(subject.functions) > 1:
        yield "functions", f"a package of {len(subject.functions)} functions"
    for function in subject.functions:
        described = subject.package.description(function.name)
        if function.states:
            yield "states", f"{function.name}: a state"
        arrays = {f.name: f.type.arrayType for f in (*described.input, *described.output)}
        for kind, code, title in (("fp16_io", FLOAT16_ARRAY, "fp16"), ("int8_io", INT8_ARRAY, "int8")):
            names = [n for n, array in arrays.items() if array.dataType == code]
            if names:
                yield kind, f"{function.name}: {', '.join(names)} in {title}"
        many = [f.name for f in described.input if f.type.arrayType.WhichOneof("flexibility") == "enumeratedShapes"]
        if len(many) > 1:
            yield "several_enumerated", f"{function.name}: {', '.join(many)}, each with enumerated shapes,"


def interface_mismatch(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Names that only one of description and function has."""
    for function in subject.functions:
        described = subject.package.description(function.name)
        pairs: tuple[tuple[str, Any, Any], ...] = (
            ("input", described.input, function.inputs),
            ("output", described.output, function.outputs),
            ("state", described.state, function.states),
        )
        for kind, features, values in pairs:
            names = {f.name for f in features}
            for name in sorted(names ^ set(values)):
                where = (
                    "the description but not the function" if name in names else "the function but not the description"
                )
                yield Found(f"{kind} {name} is in {where}", function.name, kind, name)


def wide_interface(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """Inputs and outputs in fp32."""
    for function in subject.functions:
        outputs = {n: function.types[n] for n in function.outputs if n in function.types}
        for kind, values in (("input", function.inputs), ("output", outputs)):
            for name, (dtype, _) in values.items():
                if dtype.name in ("float32", "float64"):
                    yield Found(f"{kind} {name} is {dtype.name}", function.name, kind, name, value=name)
