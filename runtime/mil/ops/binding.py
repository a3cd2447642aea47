"""Binds the arguments of an op in a program to the parameters of its function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.ops.base import CONVERTERS, GIVEN, Op

RNG = ("rng", -1)  # the operand that is the run's generator of random numbers

# The functions of numpy have positional parameters without the format's names.
UNARY, BINARY = ("x",), ("x", "y")


@dataclass(frozen=True)
class Signature:
    """Parameters of an op's function.

    Attributes:
        arrays: positional ones, in order.
        required: those among all that have no default.
        statics: keyword-only ones -> how a constant is converted.
        variadic: name of the parameter that takes a list of arrays, or None.
        given: those that the interpreter fills in, of base.GIVEN.
    """

    arrays: tuple[str, ...]
    required: frozenset[str]
    statics: Mapping[str, Callable[[Any], Any]]
    variadic: str | None
    given: frozenset[str] = frozenset()


@cache
def signature(run: Callable[..., Any]) -> Signature:
    """The parameters of an op's function."""
    if isinstance(run, np.ufunc):
        names = UNARY if run.nin == 1 else BINARY
        return Signature(names, frozenset(names), {}, None)
    parameters = inspect.signature(run).parameters.values()
    if not any(p.annotation is not inspect.Parameter.empty for p in parameters):  # np.abs and the like
        return Signature(UNARY, frozenset(UNARY), {}, None)
    arrays = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    given = frozenset(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in GIVEN)
    statics = {p.name: _converter(p) for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    return Signature(arrays, frozenset(needed) - given, statics, variadic, given)


def _converter(parameter: inspect.Parameter) -> Callable[[Any], Any]:
    return CONVERTERS[str(parameter.annotation).partition(" |")[0]]


def static_value(run: Callable[..., Any], name: str, value: Any) -> Any:
    """A constant as the function wants it under this name; arrays are handed over as they are."""
    convert = signature(run).statics.get(name)
    return value if convert is None or value is None else convert(value)


@dataclass(frozen=True)
class Bound:
    """An op's function with its small constants bound.

    Attributes:
        kernel: called with the values of `operands`.
        operands: names of the arguments that are handed over at each call; (name, i) for one of a list; None where an
            optional array is absent; RNG for the random generator.
        statics: the constants that are bound, by name; None where the kernel takes more than arrays.
    """

    kernel: Callable[..., Any]
    operands: tuple[str | tuple[str, int] | None, ...]
    statics: Mapping[str, Any] | None = None


def bind(
    op: Op,
    what: str,
    arguments: Mapping[str, Sequence[Any]],
    constants: Mapping[str, Any],
    opset: int = 18,
    run: Callable[..., Any] | None = None,
) -> Bound:
    """Binds an op of a program.

    Args:
        op: which one.
        what: what to call it in an error.
        arguments: every argument's name -> its values, one but for lists.
        constants: those arguments that are known now -> their value.
        opset: that the program was written for.
        run: called in place of the op's function, with the same arguments.

    Raises FormatError where an argument is missing or unknown.
    """
    check_arguments(op, what, arguments)
    known = signature(op.run)
    static = {n: convert(constants[n]) for n, convert in known.statics.items() if n in constants}
    late = tuple(n for n in known.statics if n in arguments and n not in constants)
    operands: list[str | tuple[str, int] | None]
    operands = [n if n in arguments else None for n in known.arrays]
    if known.variadic is not None:
        operands += [(known.variadic, i) for i in range(len(arguments.get(known.variadic, ())))]
    while operands and operands[-1] is None:
        operands.pop()
    run = op.run if run is None else run
    bound = static | ({"opset": opset} if "opset" in known.given else {})
    kernel = partial(run, **bound) if bound else run
    converters = {n: known.statics[n] for n in late}
    if "rng" not in known.given:
        if late:
            return Bound(_late(kernel, len(operands), converters), (*operands, *late))
        return Bound(kernel, tuple(operands), static)
    converters["rng"] = lambda rng: rng
    kernel = _late(kernel, len(operands), converters)
    if static.get("seed", -1) >= 0:
        seed = int(static["seed"])
        return Bound(lambda *values: kernel(*values, np.random.default_rng(seed)), (*operands, *late))
    return Bound(kernel, (*operands, *late, RNG))


def check_arguments(op: Op, what: str, arguments: Mapping[str, Any]) -> None:
    """FormatError where an argument is missing or unknown."""
    known = signature(op.run)
    names = {*known.arrays, *known.statics, *([known.variadic] if known.variadic else [])}
    missing = sorted(known.required - set(arguments))
    unknown = sorted(set(arguments) - names)
    if missing or unknown:
        got = f"missing {missing}, unknown {unknown}"
        raise FormatError(f"arguments of {what}", got=got, wanted=sorted(names), hint="the program is malformed")


def _late(
    kernel: Callable[..., Any], arrays: int, converters: Mapping[str, Callable[[Any], Any]]
) -> Callable[..., Any]:
    """A kernel whose last operands are small values that only become known as the program runs."""

    def run(*operands: Any) -> Any:
        values = zip(converters.items(), operands[arrays:], strict=True)
        return kernel(*operands[:arrays], **{n: convert(v) for (n, convert), v in values})

    return run
