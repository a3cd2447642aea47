"""Protos of types and values -> what the interpreter works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.dtypes import DType, by_proto, unpack
from satchel.runtime.mil.package import Package

# The field of a TensorValue -> numpy's type for it, for fields that hold a number an element.
NUMBER_FIELDS = {"floats": "<f4", "ints": "<i4", "longInts": "<i8", "doubles": "<f8", "bools": "bool"}


def tensor_type(value_type: Any) -> tuple[DType, tuple[int | None, ...]]:
    """(element type, shape) of a tensor, or of the tensor inside a state; None is an unknown dimension."""
    if value_type.WhichOneof("type") == "stateType":
        return tensor_type(value_type.stateType.wrappedType)
    if value_type.WhichOneof("type") != "tensorType":
        raise FormatError("type of a value", got=value_type.WhichOneof("type"), wanted="a tensor or a state")
    tensor = value_type.tensorType
    shape = tuple(d.constant.size if d.WhichOneof("dimension") == "constant" else None for d in tensor.dimensions)
    return by_proto(tensor.dataType), shape


def is_state(value_type: Any) -> bool:
    """Whether a function's input is a state."""
    return bool(value_type.WhichOneof("type") == "stateType")


def spec(named: Any) -> TensorSpec:
    """A NamedValueType as a TensorSpec; an unknown dimension has the name "?".

    What is no tensor has its kind as its type: "list" (its length as the shape), "dictionary" or "tuple".
    """
    kind = named.type.WhichOneof("type")
    if kind == "listType":
        return TensorSpec(named.name, _dimensions([named.type.listType.length]), "list")
    if kind in ("dictionaryType", "tupleType"):
        return TensorSpec(named.name, (), kind.removesuffix("Type"))
    dtype, shape = tensor_type(named.type)
    return TensorSpec(named.name, tuple("?" if d is None else d for d in shape), dtype.name)


def _dimensions(dimensions: Iterable[Any]) -> tuple[int | str, ...]:
    return tuple(d.constant.size if d.WhichOneof("dimension") == "constant" else "?" for d in dimensions)


def constant_shape(value: Any) -> tuple[DType, tuple[int, ...]]:
    """(element type, shape) of anything that has a type and is constant; FormatError when a dimension is unknown."""
    dtype, shape = tensor_type(value.type)
    if any(d is None for d in shape):
        raise FormatError("shape of a constant", got=shape, wanted="known dimensions")
    return dtype, tuple(int(d or 0) for d in shape)


def reader(package: Package, value: Any) -> Callable[[], Any]:
    """A function that reads a constant: an array in its storage type, a str, a list or a dict."""
    if value.WhichOneof("value") == "blobFileValue":
        blob, (dtype, shape) = value.blobFileValue, constant_shape(value)
        return lambda: package.blob_file(blob.fileName).array(blob.offset, dtype, shape)
    return lambda: immediate(value)


def immediate(value: Any) -> Any:
    """A constant that lies in the proto itself."""
    kind = value.immediateValue.WhichOneof("value")
    content: Any = getattr(value.immediateValue, kind) if kind else None
    if kind == "tensor":
        return _tensor(content, *constant_shape(value))
    if kind in ("list", "tuple"):
        return [immediate(v) for v in content.values]
    if kind == "dictionary":
        return {_key(immediate(p.key)): immediate(p.value) for p in content.values}
    raise FormatError("constant of the program", got=kind, wanted="a tensor, list, tuple or dictionary")


def _key(key: Any) -> Any:
    return key.item() if isinstance(key, np.ndarray) else key


def _tensor(tensor: Any, dtype: DType, shape: tuple[int, ...]) -> Any:
    kind = tensor.WhichOneof("value")
    content: Any = getattr(tensor, kind).values if kind else ()
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if kind == "strings":
        values = np.array(list(content), dtype=object)
    elif kind == "bytes":
        if len(content) < dtype.nbytes(count):
            raise FormatError("constant of the program", got=f"{len(content)} bytes", wanted=dtype.nbytes(count))
        values = unpack(np.frombuffer(content, np.uint8), dtype, count)
    elif kind in NUMBER_FIELDS:
        values = np.array(content, dtype=NUMBER_FIELDS[kind]).astype(dtype.storage, copy=False)
    else:
        values = np.zeros(0, dtype.storage)
    if values.size != count:
        raise FormatError("constant of the program", got=f"{values.size} elements", wanted=f"{count} of {dtype.name}")
    return values[0] if kind == "strings" and not shape else values.reshape(shape)
