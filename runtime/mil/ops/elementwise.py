"""Ops on each element alone: arithmetic, comparison, logic, and functions of one variable."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import cache

import numpy as np

from satchel.runtime.mil.dtypes import by_mil_name, compute_type
from satchel.runtime.mil.ops.base import Array, Op, pick


def real_div(x: Array, y: Array) -> Array:
    """x / y; of integers the quotient without its fraction, as coremltools' value inference has it."""
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    quotient, rest = np.divmod(x, y)
    return quotient + ((rest != 0) & (quotient < 0)).astype(x.dtype)


def power(x: Array, y: Array) -> Array:
    """x ** y in the type of x; an integer to a negative power has lost its fraction too."""
    if x.dtype.kind not in "iu" or np.all(y >= 0):
        return np.power(x, y, dtype=x.dtype)
    found = np.power(x, np.abs(y), dtype=x.dtype)
    return np.where((y >= 0) | (np.abs(x) == 1), found, x.dtype.type(0))


def exp2(x: Array) -> Array:
    """2 ** x in the type of x."""
    return np.exp2(x) if x.dtype.kind == "f" else to_integers(np.exp2(x), x.dtype)


def rsqrt(x: Array, *, epsilon: float = 1e-12) -> Array:
    """1 / sqrt(x + epsilon)."""
    return np.float32(1) / np.sqrt(x + np.float32(epsilon))


def inverse(x: Array, *, epsilon: float = 1e-4) -> Array:
    """1 / (x + epsilon)."""
    return np.float32(1) / (x + np.float32(epsilon))


def log(x: Array, *, epsilon: float = 1e-45) -> Array:
    """ln(x + epsilon)."""
    return np.log(x + np.float32(epsilon))


def clip(x: Array, *, alpha: float, beta: float, opset: int = 18) -> Array:
    """x held between alpha and beta, which must be the larger since iOS 17; before, beta wins."""
    if opset >= 17 and alpha >= beta:
        raise ValueError(f"clip between {alpha} and {beta}")
    return np.clip(x, x.dtype.type(alpha), x.dtype.type(beta))


def threshold(x: Array, *, alpha: float) -> Array:
    """max(x, alpha)."""
    return np.maximum(x, x.dtype.type(alpha))


def select(cond: Array, a: Array, b: Array) -> Array:
    """a where cond, else b."""
    return np.where(cond, a, b)


def to_integers(x: Array, dtype: np.dtype) -> Array:
    """Floats cut towards zero; those that the type does not reach become its end, and NaN becomes 0.

    That is how Apple's processors convert; numpy's own result would differ from machine to machine.
    """
    bounds = np.iinfo(dtype)
    wide = np.asarray(x, np.float64)  # which holds the bounds of 32 bits exactly
    return np.clip(np.where(np.isnan(wide), 0, wide), bounds.min, bounds.max).astype(dtype)


def cast(x: Array, *, dtype: str) -> Array:
    """x as another type; see to_integers. Integers wrap around in a smaller type."""
    x, wanted = np.asarray(x), compute_type(by_mil_name(dtype))
    if "O" in (x.dtype.kind, wanted.kind):
        raise ValueError(f"cast of {x.dtype.name} to {dtype}: the format casts numbers and truths only")
    if x.dtype.kind == "f" and wanted.kind in "iu" and wanted.itemsize <= 4:
        return to_integers(x, wanted)
    return x.astype(wanted, copy=False)


def round_half_even(x: Array) -> Array:
    """To the nearest integer, halves to the even one."""
    return np.rint(x)


@cache
def _erf() -> Callable[[Array], Array]:
    """scipy's erf where scipy is installed, else the standard library's: as exact, but a Python call an element."""
    try:
        special = importlib.import_module("scipy.special")
    except ImportError:
        return np.vectorize(math.erf, otypes=[np.float32])
    return special.erf  # type: ignore[no-any-return]


def erf(x: Array) -> Array:
    """The error function."""
    return np.asarray(_erf()(x), dtype=x.dtype)


def logical_not(x: Array) -> Array:
    """Not x."""
    return np.logical_not(x)


OPS: dict[str, Op] = {
    "abs": pick(np.abs),
    "acos": Op(np.arccos),
    "add": Op(np.add),
    "asin": Op(np.arcsin),
    "atan": Op(np.arctan),
    "atanh": Op(np.arctanh),
    "cast": Op(cast, view=True),
    "ceil": Op(np.ceil),
    "clip": Op(clip),
    "cos": Op(np.cos),
    "cosh": Op(np.cosh),
    "equal": pick(np.equal),
    "erf": Op(erf),
    "exp": Op(np.exp),
    "exp2": Op(exp2),
    "floor": Op(np.floor),
    "floor_div": Op(np.floor_divide),
    "greater": pick(np.greater),
    "greater_equal": pick(np.greater_equal),
    "inverse": Op(inverse),
    "less": pick(np.less),
    "less_equal": pick(np.less_equal),
    "log": Op(log),
    "logical_and": pick(np.logical_and),
    "logical_not": pick(logical_not),
    "logical_or": pick(np.logical_or),
    "logical_xor": pick(np.logical_xor),
    "maximum": pick(np.maximum),
    "minimum": pick(np.minimum),
    "mod": Op(np.mod),
    "mul": Op(np.multiply),
    "not_equal": pick(np.not_equal),
    "pow": Op(power),
    "real_div": Op(real_div),
    "round": Op(round_half_even),
    "rsqrt": Op(rsqrt),
    "select": pick(select),
    "sign": pick(np.sign),
    "sin": Op(np.sin),
    "sinh": Op(np.sinh),
    "sqrt": Op(np.sqrt),
    "square": Op(np.square),
    "sub": Op(np.subtract),
    "tan": Op(np.tan),
    "threshold": Op(threshold),
}
