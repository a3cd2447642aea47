"""What an op is to the interpreter, and how its constant arguments are handed over.

An op is a plain function with the op's own parameter names. Positional parameters are arrays (a constant that is
absent is None); `*values` takes a list of arrays. Keyword-only parameters are small constants, converted by their
annotation: Ints, int, float, bool, Bools, str.

Floats come as float32 whatever the program's type, and leave as float32; the interpreter rounds where it must.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any  # np.ndarray; numpy's stubs lose the type in arithmetic
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
