"""Lists of tensors of one shape, as loops collect them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from satchel.runtime.mil.dtypes import by_mil_name, compute_type
from satchel.runtime.mil.ops.base import Array, Op, move, pick

LONGEST = 1 << 24  # elements: beyond it a program is broken, or means harm


@dataclass(frozen=True)
class TensorList:
    """A list as a value of a program; writing makes another one.

    Attributes:
        elements: None where nothing was written.
        shape: of an element; None for a dimension that is only known as the program runs.
        dtype: of an element.
        dynamic: whether it grows when something is written beyond its end.
    """

    elements: tuple[Array | None, ...]
    shape: tuple[int | None, ...]
    dtype: np.dtype
    dynamic: bool

    def read(self, index: int) -> Array:
        """An element; zeros where nothing was written, if the shape is known."""
        self._check_index(index)
        found = self.elements[index]
        if found is not None:
            return found
        if None in self.shape:
            raise ValueError(f"element {index} of the list was never written")
        return np.zeros([n for n in self.shape if n is not None], self.dtype)

    def written(self, indices: Iterable[int], values: Iterable[Array]) -> TensorList:
        """The list with these elements replaced."""
        elements = list(self.elements)
        for index, value in zip(indices, values, strict=True):
            self._check_value(value)
            if index >= len(elements) and self.dynamic:
                elements += [None] * (_length(index + 1) - len(elements))
            elements[_inside(index, len(elements))] = value
        return replace(self, elements=tuple(elements))

    def _check_index(self, index: int) -> None:
        _inside(index, len(self.elements))

    def _check_value(self, value: Array) -> None:
        have = np.shape(value)
        if len(have) != len(self.shape) or any(w not in (None, h) for h, w in zip(have, self.shape, strict=True)):
            raise ValueError(f"an element of shape {list(have)} in a list of elements of shape {list(self.shape)}")


def _inside(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise IndexError(f"index {index} into a list of {length}")
    return index


def _length(length: int) -> int:
    if not 0 <= length <= LONGEST:
        raise ValueError(f"a list of {length} elements; at most {LONGEST} are allowed")
    return length


def _integer(value: Any) -> int:
    return int(np.asarray(value).reshape(-1)[0])


def make_list(*elem_shape: Any, init_length: int = 1, dynamic_length: bool = True, dtype: str = "fp32") -> TensorList:
    """A list of elements that are not yet written; a dimension of `elem_shape` that has a name is not known yet."""
    shape = tuple(None if isinstance(n, str) else _integer(n) for n in elem_shape)
    return TensorList((None,) * _length(init_length), shape, compute_type(by_mil_name(dtype)), dynamic_length)


def list_length(ls: TensorList) -> Array:
    """How many elements there are, int32."""
    return np.array(len(ls.elements), np.int32)


def list_read(ls: TensorList, index: Array) -> Array:
    """One element."""
    return ls.read(_integer(index))


def list_write(ls: TensorList, index: Array, value: Array) -> TensorList:
    """The list with one element replaced; it grows where it may."""
    return ls.written([_integer(index)], [value])


def list_gather(ls: TensorList, indices: Array) -> Array:
    """Elements, stacked along a new first axis."""
    wanted = np.asarray(indices).reshape(-1).tolist()
    if not wanted:
        return np.zeros([0, *(n or 0 for n in ls.shape)], ls.dtype)
    return np.stack([ls.read(i) for i in wanted])


def list_scatter(ls: TensorList, indices: Array, value: Array) -> TensorList:
    """The list with elements replaced by slices along the first axis of `value`; it grows where it may."""
    return ls.written(np.asarray(indices).reshape(-1).tolist(), value)


OPS: dict[str, Op] = {
    "list_gather": pick(list_gather),
    "list_length": pick(list_length),
    "list_read": move(list_read),
    "list_scatter": move(list_scatter),
    "list_write": move(list_write),
    "make_list": pick(make_list),
}
