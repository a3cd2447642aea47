"""What an op is to the interpreter, and how its constant arguments are handed over.

An op is a plain function with the op's own parameter names. Positional parameters are arrays (a constant that is
absent is None); `*values` takes a list of arrays. Keyword-only parameters are small constants, converted by their
annotation: Ints, int, float, bool, Bools, str. Two keyword-only parameters are no arguments of the op; whoever has
them is given them by the interpreter:

    rng: Generator    the run's random numbers (`Program.run(seed=...)`); where the op has a `seed` of 0 or more, a
                      generator fresh from that seed at each call, so that the function need not look at `seed`.
    opset: int        the opset that the program was written for: 15, 16, 17, 18, ... (iOS versions).

An op with one output returns an array (or a lists.TensorList, a str, a dict); only an op
with several outputs returns a tuple.

Floats come as float32 whatever the program's type, and leave as float32; the interpreter rounds where it must.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # np.ndarray; numpy's stubs lose the type in arithmetic
Generator = np.random.Generator
GIVEN = ("rng", "opset")  # keyword-only parameters that the interpreter fills in
Ints = tuple[int, ...]
Bools = tuple[bool, ...]


@dataclass(frozen=True)
class Op:
    """One op.

    Attributes:
        run: the function; it returns one array, or a tuple of them for an op with several outputs.
        exact: each output value is one of the input values, so that rounding it again would be a waste.
        view: outputs may share memory with an input.
        contraction: a matrix product, run by BLAS, whose NaN no floating-point flag reports.
    """

    run: Callable[..., Any]
    exact: bool = False
    view: bool = False
    contraction: bool = False


def move(run: Callable[..., Any]) -> Op:
    """An op that only moves values and may return a view."""
    return Op(run, exact=True, view=True)


def pick(run: Callable[..., Any]) -> Op:
    """An op that copies values or gives integers or truths: nothing to round."""
    return Op(run, exact=True)


def contract(run: Callable[..., Any]) -> Op:
    """A matrix product of some kind."""
    return Op(run, contraction=True)


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "Ints": lambda v: tuple(np.asarray(v).reshape(-1).tolist()),
    "Bools": lambda v: tuple(bool(b) for b in np.asarray(v).reshape(-1).tolist()),
    "int": lambda v: int(np.asarray(v).reshape(-1)[0]),
    "float": lambda v: float(np.asarray(v).reshape(-1)[0]),
    "bool": lambda v: bool(np.asarray(v).reshape(-1)[0]),
    "str": str,
}
