"""Writes ONNX models: the few messages of onnx.proto that a graph of plain ops needs, in protobuf's wire format.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

IR_VERSION = 10
OPSET = 20
CONTRIB = "com.microsoft"  # onnxruntime's own ops
ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10}
FLOAT, INT, STRING, INTS = 1, 2, 3, 7  # AttributeProto.AttributeType


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _attribute(name: str, value: Any) -> bytes:
    head = _bytes(1, name)
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + struct.pack("<f", value) + _number(20, FLOAT)
    if isinstance(value, int):
        return head + _number(3, value) + _number(20, INT)
    if isinstance(value, str):
        return head + _bytes(4, value) + _number(20, STRING)
    return head + b"".join(_number(8, int(v)) for v in value) + _number(20, INTS)


def node(op: str, inputs: Sequence[str], outputs: Sequence[str], domain: str, attributes: Mapping[str, Any]) -> bytes:
    """A NodeProto. An attribute is a float, an int, a str or a sequence of ints."""
    parts = [_bytes(1, i) for i in inputs] + [_bytes(2, o) for o in outputs] + [_bytes(4, op)]
    parts += [_bytes(5, _attribute(name, value)) for name, value in attributes.items()]
    return b"".join(parts) + (_bytes(7, domain) if domain else b"")


def tensor(name: str, array: np.ndarray) -> bytes:
    """A TensorProto with its values inside."""
    head = b"".join(_number(1, n) for n in array.shape) + _number(2, ELEMENT_TYPES[array.dtype.name])
    return head + _bytes(8, name) + _bytes(9, array.tobytes())


def external_tensor(name: str, dtype: str, shape: Iterable[int]) -> bytes:
    """A TensorProto whose values are given to the session apart."""
    where = _bytes(13, _bytes(1, "location") + _bytes(2, name))
    return (
        b"".join(_number(1, n) for n in shape)
        + _number(2, ELEMENT_TYPES[dtype])
        + _bytes(8, name)
        + where
        + _number(14, 1)
    )


def value_info(name: str, dtype: str, shape: Iterable[int]) -> bytes:
    """A ValueInfoProto."""
    dimensions = b"".join(_bytes(1, _number(1, n)) for n in shape)
    kind = _number(1, ELEMENT_TYPES[dtype]) + _bytes(2, dimensions)
    return _bytes(1, name) + _bytes(2, _bytes(1, kind))


def model(
    nodes: Iterable[bytes], initializers: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[bytes]
) -> bytes:
    """A ModelProto of one graph, serialized."""
    graph = [_bytes(1, n) for n in nodes] + [_bytes(2, "region")] + [_bytes(5, t) for t in initializers]
    graph += [_bytes(11, i) for i in inputs] + [_bytes(12, o) for o in outputs]
    opsets = _bytes(8, _bytes(1, "") + _number(2, OPSET)) + _bytes(8, _bytes(1, CONTRIB) + _number(2, 1))
    return _number(1, IR_VERSION) + opsets + _bytes(7, b"".join(graph))
