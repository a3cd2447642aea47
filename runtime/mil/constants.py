"""The constants of a program: read when an op needs them, kept once for all functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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

SMALL = 1 << 16  # bytes of a constant that is not worth a decision
ARENA = 1 << 26  # bytes that are asked of the system at a time
LINE = 64  # bytes to which arrays in an arena are aligned
Rows = Callable[[np.ndarray], np.ndarray]  # places along the first axis -> the values there


@dataclass(frozen=True)
class Constant:
    """A value that is known before the program runs.

    Attributes:
        key: equal for equal constants, so that functions share them; None for one that lies in the proto.
        load: gives the value, floats as float32.
        nbytes: what the loaded value takes.
        find_rows: gives a function that expands the values at some places of the first axis and no others; None where
            that cannot be.
    """

    key: tuple[Any, ...] | None
    load: Callable[[], Any]
    nbytes: int
    find_rows: Callable[[], Rows | None] = lambda: None


@dataclass
class Pool:
    """Loaded constants by key, within a limit.

    Attributes:
        limit: bytes that may be kept; None for no limit. Within it small constants are kept first, then as many as
            possible in fp16 where that is exact, then as many of those as possible in fp32. The rest are loaded again
            whenever they are used.
        overflows: compressed constants that turned out to be beyond fp16, by name.
    """

    limit: int | None = None
    used: int = 0
    overflows: dict[str, OverflowReport] = field(default_factory=dict)
    _kept: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    _halves: dict[tuple[Any, ...], np.ndarray] = field(default_factory=dict)
    _arena: Arena = field(default_factory=lambda: Arena())

    def get(self, constant: Constant) -> Any | None:
        """The loaded value, or None where the limit forbids to keep it, or `settle` has yet to decide."""
        if constant.key is None:
            return constant.load()
        if constant.key not in self._kept and (self.limit is None or constant.nbytes <= SMALL):
            self._keep(constant, constant.load)
        return self._kept.get(constant.key)

    def half(self, constant: Constant) -> np.ndarray | None:
        """The value in fp16, where that is exact and it is kept so."""
        return None if constant.key is None else self._halves.get(constant.key)

    def settle(self, constants: Iterable[Constant]) -> None:
        """Decides which of a function's large constants are kept, and how."""
        new = {c.key: c for c in constants if c.key is not None and c.key not in self._kept}
        for key, constant in new.items():
            if key not in self._halves and self._has_room(constant.nbytes // 2):
                half = _exact_half(value := constant.load())
                if half is None:
                    self._keep(constant, lambda v=value: v)  # type: ignore[misc]
                else:
                    self._halves[key] = self._arena.place(half)
                    self.used += half.nbytes
        for key, constant in new.items():
            if key in self._halves and self._has_room(constant.nbytes - self._halves[key].nbytes):
                half = self._halves.pop(key)
                self.used -= half.nbytes
                self._keep(constant, lambda h=half: h.astype(np.float32))  # type: ignore[misc]

    def _has_room(self, nbytes: int) -> bool:
        return self.limit is None or self.used + nbytes <= self.limit

    def _keep(self, constant: Constant, load: Callable[[], Any]) -> None:
        if constant.key is not None and self._has_room(constant.nbytes):
            self._kept[constant.key] = self._arena.place(load())
            self.used += constant.nbytes


class Arena:
    """Where large arrays lie side by side, so that the system can give them large pages.

    Reading a hundred weights of 3 MB one after the other is a fifth faster so: numpy asks for large pages from 4 MB on.
    """

    def __init__(self) -> None:
        self._free = np.empty(0, np.uint8)

    def place(self, array: Any) -> Any:
        """A copy in the arena; the array itself where it is small, or large enough to have pages of its own."""
        if not isinstance(array, np.ndarray) or not SMALL < array.nbytes < ARENA // 4:
            return array
        if self._free.size < array.nbytes:
            self._free = np.empty(ARENA, np.uint8)
        taken = self._free[: array.nbytes].view(array.dtype).reshape(array.shape)
        taken[...] = array
        self._free = self._free[-(-array.nbytes // LINE) * LINE :]
        return taken


def _exact_half(values: np.ndarray) -> np.ndarray | None:
    """Float32 values as fp16, if each is the same number there."""
    if values.dtype != np.float32:
        return None
    half = values.astype(np.float16)
    return half if np.array_equal(half, values) else None


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
        rows = (lambda places: widen(read()[places], dtype)) if dtype.bits >= 8 and shape else None
        return Constant(key, lambda: widen(read(), dtype), nbytes, lambda: rows)
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
    key, alone = (op_type, part, rounds, shape, tuple(keys.items())), part is None and not rounds
    return Constant(key, load, nbytes, lambda: _rows(op_type, arguments, shape) if alone else None)


# Ops whose rows along the first axis can be expanded alone: the argument with an element for each of the result's, and
# those with one for each block.
BY_ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "constexpr_blockwise_shift_scale": ("data", ("scale", "offset")),
    "constexpr_lut_to_dense": ("indices", ("lut",)),
}


def _rows(op_type: str, arguments: Mapping[str, Constant], shape: tuple[int, ...]) -> Rows | None:
    """How to expand some rows of a compressed constant; None where a row needs more than its own codes."""
    codes, blocks = BY_ROWS.get(op_type, ("", ()))
    take = arguments[codes].find_rows() if codes in arguments else None
    if take is None or not shape or set(arguments) - {codes, *blocks}:
        return None
    shared = {name: arguments[name].load() for name in blocks if name in arguments}
    vector = shared["lut"].shape[-1] if "lut" in shared else 1
    if vector != 1 or any(shape[0] % max(1, v.shape[0]) for v in shared.values()):
        return None

    def rows(places: np.ndarray) -> np.ndarray:
        flat = places.reshape(-1)
        each = {n: v[flat // (shape[0] // v.shape[0])] if v.shape[0] > 1 else v for n, v in shared.items()}
        return np.asarray(OPS[op_type].run(**{codes: take(flat)}, **each)).reshape(*places.shape, *shape[1:])

    return rows


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
