"""Ops that leave the engine, or that it computes badly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.subject import Answer, Found, NotJudged, Subject, at, shown
from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp, elements

MOVES = ("cast", "read_state", "write_state", "identity")  # whose type is not one of computing
SQUARES = ("square", "mul", "pow")
SUMS = ("reduce_mean", "reduce_sum")
SUMS_OF_SQUARES = ("reduce_sum_square", "reduce_l2_norm")


def compute_in_wide_floats(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Ops that compute in another float than fp16; one finding for each op type of a function."""
    totals = Counter(function.name for function, _ in subject.computing())
    wide: dict[tuple[str, str, str], list[SurveyedOp]] = {}
    for function, op in subject.computing():
        result = function.result_type(op)
        if result and op.type not in MOVES and result[0].name in rule.names("types"):
            wide.setdefault((function.name, op.type, result[0].name), []).append(op)
    for (name, op_type, dtype), ops in wide.items():
        what = f"{len(ops)} of the function's {totals[name]} ops are {op_type} in {dtype}"
        yield Found(what, name, op_type, ops[0].name, ops=tuple(ops))


def compute_in_integers(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Arithmetic in integers, and comparisons of them."""
    for function, op in subject.each(rule.names("ops")):
        found = function.result_type(op)
        if found and found[0].name == "bool":
            found = function.argument_type(op, "x")
        if found and found[0].name.startswith(("int", "uint")):
            yield at(op, f"in {found[0].name}, {shown(found[1])}")


def linear_layers(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Products with constant weights that are no convs."""
    for _, op in subject.each(rule.names("ops")):
        if _weight(subject, op) is not None:
            yield at(op, "a product with constant weights")


def _weight(subject: Subject, op: SurveyedOp) -> str | None:
    """The parameter of a product that is constant."""
    function = next(f for f in subject.functions if f.name == op.function)
    for parameter in ("weight", "y", "x"):
        values = op.arguments.get(parameter, ())
        if len(values) == 1 and function.is_constant(values[0]):
            return parameter
    return None


def attention_op(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """The attention op."""
    later = subject.target.ios and subject.target.ios < rule.number("from_ios")
    for _, op in subject.each(rule.names("ops")):
        when = f"seen from iOS {rule.number('from_ios')} on, to which the target's users update" if later else "in use"
        yield at(op, when)


def present(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Ops that the rule names."""
    for function, op in subject.each(rule.names("ops")):
        result = function.result_type(op)
        yield at(op, f"gives {shown(result[1])}" if result else "in use")


def naive_rms_norm(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Sums of squares in fp16 of values that nothing scaled down."""
    for function, op in subject.each((*SUMS, *SUMS_OF_SQUARES)):
        result = function.result_type(op)
        squared = _squared(function, op)
        if result is None or squared is None or result[0].name not in rule.names("types"):
            continue
        hops = int(rule.number("hops"))
        if not any(maker.type == "reduce_max" for maker in function.ancestors(squared, hops)):
            yield at(op, f"sums the squares of '{squared}', which is not scaled down first")


def _squared(function: FunctionSurvey, op: SurveyedOp) -> str | None:
    """The value whose squares an op sums."""
    if op.type in SUMS_OF_SQUARES:
        return next((v for v in op.arguments.get("x", ()) if isinstance(v, str)), None)
    square = function.maker(op, "x")
    if square is None or square.type not in SQUARES:
        return None
    x = square.arguments.get("x", ())
    doubled = square.type == "mul" and x == square.arguments.get("y")
    power = function.setting(square, "y") if square.type == "pow" else None
    to_the_second = isinstance(power, np.ndarray) and power.size == 1 and power.item() == 2
    if not (square.type == "square" or doubled or to_the_second):
        return None
    return x[0] if x and isinstance(x[0], str) else None


def embedding_inside(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Large tables that a gather looks up."""
    for function, op in subject.each(rule.names("ops")):
        table = function.argument_type(op, "x")
        if table is None or not function.is_constant(op.arguments["x"][0]):
            continue
        size = table[0].nbytes(elements(table[1]))
        if size >= rule.number("least_bytes"):
            yield at(op, f"a table of {shown(table[1])}, {size / 1e6:.0f} MB when expanded")


def unsplit_head(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Products with a whole vocabulary."""
    for function, op in subject.each(rule.names("ops")):
        result = function.result_type(op)
        if result is None or not result[1] or _weight(subject, op) is None:
            continue
        channels = result[1][1] if op.type == "conv" and len(result[1]) > 1 else result[1][-1]
        if channels is not None and channels >= rule.number("least_channels"):
            yield at(op, f"{channels} output channels at once")


# ---- convolutions --------------------------------------------------------------------------------------------------


def kernel_width(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Convs with a wide kernel."""
    for function, op in subject.each(("conv", "conv_transpose")):
        weight = function.argument_type(op, "weight")
        width = weight[1][-1] if weight and len(weight[1]) > 2 else 0
        if width is None:
            yield NotJudged(f"the kernel of {op.type} '{op.name}' is not known before the program runs")
        elif width > rule.number("most"):
            yield at(op, f"a kernel {width} wide, at most {rule.number('most')}")


def stride_factors(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Convs whose strides or dilations have other prime factors."""
    for function, op in subject.each(rule.names("ops")):
        for parameter in ("strides", "dilations"):
            bad = [s for s in function.integers(op, parameter) or () if _rest(s, rule.numbers("factors")) > 1]
            if bad:
                yield at(op, f"{parameter} of {', '.join(map(str, bad))}")


def _rest(number: int, factors: tuple[int, ...]) -> int:
    """What is left of a number when the factors are divided out."""
    for factor in factors:
        while number > 1 and number % factor == 0:
            number //= factor
    return number


def palettized_stride(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Palettized convs with long steps."""
    for function, op in subject.each(rule.names("ops")):
        maker = function.maker(op, "weight")
        strides = function.integers(op, "strides") or (1,)
        if maker and "lut" in maker.type and max(strides) > rule.number("most"):
            yield at(op, f"a stride of {max(strides)} with palettized weights, at most {rule.number('most')}")
