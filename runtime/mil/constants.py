"""The constants of a program: read when an op needs them, kept once for all functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.dtypes import widen
from satchel.runtime.mil.limits import check_constant_size
from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.ops.binding import static_value
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.precision import OverflowReport, largest, round_fp16
from satchel.runtime.mil.values import constant_shape, reader


@dataclass(frozen=True)
class Constant:
    """A value that is known before the program runs.

    Attributes:
        key: equal for equal constants, so that functions share them; None for one that lies in the proto.
        load: gives the value, floats as float32.
        nbytes: what the loaded value takes.
    """

    key: tuple[Any, ...] | None
    load: Callable[[], Any]
    nbytes: int


@dataclass
class Pool:
    """Loaded constants by key, within a limit.

    Attributes:
        limit: bytes that may be kept; None for no limit. Beyond it constants are loaded again whenever they are used.
        overflows: compressed constants that turned out to be beyond fp16, by name.
    """

    limit: int | None = None
    used: int = 0
    overflows: dict[str, OverflowReport] = field(default_factory=dict)
    _kept: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def get(self, constant: Constant) -> Any | None:
        """The loaded value, or None where the limit forbids to keep it."""
        if constant.key is None:
            return constant.load()
        if constant.key not in self._kept:
            if self.limit is not None and self.used + constant.nbytes > self.limit:
                return None
            self._kept[constant.key] = constant.load()
            self.used += constant.nbytes
        return self._kept[constant.key]


def from_value(package: Package, value: Any) -> Constant:
    """A constant of the proto, or of a blob that it names."""
    read = reader(package, value)
    if value.type.WhichOneof("type") != "tensorType":
        return Constant(None, read, 0)
    dtype, shape = constant_shape(value)
    itemsize = 4 if dtype.is_float else max(1, dtype.bits // 8)
    nbytes = int(np.prod(shape, dtype=object)) * itemsize
    if value.WhichOneof("value") == "blobFileValue":
        key = (value.blobFileValue.fileName, value.blobFileValue.offset, dtype.name, shape)
        return Constant(key, lambda: widen(read(), dtype), nbytes)
    content = read()
    content = widen(content, dtype) if isinstance(content, np.ndarray) else content
    return Constant(None, lambda: content, nbytes)


def from_constexpr(
    op_type: str, output: Any, arguments: Mapping[str, Constant], rounds: bool, part: int | None = None,
    overflows: dict[str, OverflowReport] | None = None,
) -> Constant:  # fmt: skip
    """A compressed constant, called as the op's output says.

    Args:
        op_type: which op.
        output: one of its outputs.
        arguments: name -> constant.
        rounds: whether values of type fp16 must be rounded to it.
        part: which output this is, where the op has several.
        overflows: told, under the output's name, if the values are beyond fp16.
    """
    known = OPS[op_type]
    dtype, shape = constant_shape(output)
    rounds = rounds and dtype.name == "float16" and not known.exact
    keys = {n: a.key or _immediate_key(a.load()) for n, a in sorted(arguments.items())}

    def load() -> Any:
        values = {n: static_value(known.run, n, a.load()) for n, a in arguments.items()}
        try:
            check_constant_size(op_type, values, shape)
            result = known.run(**values)
            result = result if part is None else result[part]
        except (ValueError, IndexError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise FormatError(f"{op_type} '{output.name}'", got=error, hint="the constant is malformed") from error
        if result.shape != shape:
            raise FormatError(f"{op_type} '{output.name}'", got=result.shape, wanted=shape)
        return _rounded(result, op_type, output.name, overflows) if rounds else result

    nbytes = int(np.prod(shape, dtype=object)) * (4 if dtype.is_float else 1)
    return Constant((op_type, part, rounds, shape, tuple(keys.items())), load, nbytes)


def _rounded(values: np.ndarray, op_type: str, name: str, overflows: dict[str, OverflowReport] | None) -> np.ndarray:
    raised: list[str] = []
    with np.errstate(over="call", call=lambda kind, flag: raised.append(kind)):
        rounded = round_fp16(values)
    if raised and overflows is not None:
        count = int(np.isinf(rounded).sum())
        overflows[name] = OverflowReport("", op_type, name, "overflow", largest([values]), count)
    return rounded


def _immediate_key(value: Any) -> tuple[Any, ...]:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    return (value,)
