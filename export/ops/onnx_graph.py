"""A small builder over onnx-ir: nodes, constants, and initializers whose bytes go to disk as soon as they are known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx_ir as ir

OPSET = 21
"""The newest opset that onnxruntime 1.20 knows, and the first with 4-bit tensors as ordinary ones."""
IR_VERSION = 10
"""The newest IR version that onnxruntime 1.20 reads."""
MICROSOFT = "com.microsoft"
ALIGNMENT = 64
"""Offsets in the external file are multiples of this many bytes, so that a mapped tensor suits any vector load."""
INLINE_BYTES = 1024
"""Initializers up to this size stay inside the .onnx file: a look at the graph then shows LUTs and shapes."""

_DTYPES = {
    np.dtype(np.bool_): ir.DataType.BOOL,
    np.dtype(np.float32): ir.DataType.FLOAT,
    np.dtype(np.float16): ir.DataType.FLOAT16,
    np.dtype(np.uint8): ir.DataType.UINT8,
    np.dtype(np.uint16): ir.DataType.UINT16,
    np.dtype(np.int8): ir.DataType.INT8,
    np.dtype(np.int32): ir.DataType.INT32,
    np.dtype(np.int64): ir.DataType.INT64,
}


class ExternalData:
    """The file of large initializers, written front to back, so that one tensor at a time is in memory.

    Several graphs may share it: a tensor that two of them have by one name, with the same bytes, is there once.
    """

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream
        self._written: dict[tuple[str, bytes], ir.ExternalTensor] = {}

    def append(self, name: str, data: bytes, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
        """Writes one tensor and returns the reference to it."""
        key = (name, hashlib.sha256(data).digest())
        if key not in self._written:
            self._written[key] = self._append(name, data, dtype, shape)
        return self._written[key]

    def _append(self, name: str, data: bytes, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
        self._stream.write(b"\0" * (-self._stream.tell() % ALIGNMENT))
        offset = self._stream.tell()
        self._stream.write(data)
        return ir.ExternalTensor(
            self.path.name, offset, len(data), dtype, shape=ir.Shape(shape), name=name, base_dir=self.path.parent
        )


class GraphBuilder:
    """Collects the inputs, initializers and nodes of one graph, in a fixed order.

    Names are given by the caller and must be unique; the output of node "x" is the value "x" and its further outputs
    are "x:1", "x:2", ...
    """

    def __init__(self, data: ExternalData) -> None:
        self.nodes: list[ir.Node] = []
        self.inputs: list[ir.Value] = []
        self.initializers: dict[str, ir.Value] = {}
        self.needs: dict[str, str] = {"1.20": "opset 21 and IR version 10"}
        self._data = data
        self._casts: dict[str, ir.Value] = {}

    def require(self, version: str, reason: str) -> None:
        """Notes that the graph holds something that onnxruntime reads from `version` on."""
        self.needs.setdefault(version, reason)

    def minimum_version(self) -> tuple[str, str]:
        """(the oldest onnxruntime that runs the graph, why)."""
        newest = max(self.needs, key=lambda v: tuple(int(part) for part in v.split(".")))
        return newest, self.needs[newest]

    def input(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        """An input of the graph; a string names a dynamic dimension."""
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self.inputs.append(value)
        return value

    def initializer(self, name: str, array: np.ndarray) -> ir.Value:
        """A constant tensor of a numpy dtype; one that is already there by this name is reused."""
        return self.raw_initializer(name, array.tobytes(), _DTYPES[array.dtype], array.shape)

    def raw_initializer(self, name: str, data: bytes, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        """A constant tensor by its bytes, for dtypes that numpy lacks (uint4: low nibble first; bfloat16)."""
        if name not in self.initializers:
            self.initializers[name] = self._constant(name, data, dtype, shape)
        return self.initializers[name]

    def external(self, name: str, data: bytes, dtype: ir.DataType, shape: Sequence[int]) -> ir.ExternalTensor:
        """A tensor in the file of large ones, for a value that is another graph's."""
        return self._data.append(name, data, dtype, shape)

    def _constant(self, name: str, data: bytes, dtype: ir.DataType, shape: Sequence[int]) -> ir.Value:
        tensor: ir.TensorProtocol
        if len(data) > INLINE_BYTES:
            tensor = self._data.append(name, data, dtype, shape)
        elif dtype == ir.DataType.UINT4:
            tensor = ir.PackedTensor(np.frombuffer(data, np.uint8).copy(), dtype, shape=shape, name=name)
        else:
            values = np.frombuffer(data, dtype.numpy()).reshape(tuple(shape)).copy()
            tensor = ir.Tensor(values, dtype, shape=ir.Shape(shape), name=name)
        return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype), const_value=tensor)

    def nodes_out(
        self,
        op: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
        *,
        outputs: Sequence[bool],
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> list[ir.Value]:
        """A node with several outputs; `outputs[i]` says whether output i is wanted."""
        values = [ir.Value(name=(f"{name}:{i}" if i else name) if on else "") for i, on in enumerate(outputs)]
        made = [ir.convenience.convert_attribute(key, value) for key, value in (attributes or {}).items()]
        self.nodes.append(
            ir.Node(domain, op, inputs, made, outputs=values, name=name, metadata_props=dict(metadata or {}))
        )
        return values

    def node(
        self,
        op: str,
        name: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
        *,
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> ir.Value:
        """A node with one output."""
        return self.nodes_out(op, name, inputs, attributes, outputs=[True], domain=domain, metadata=metadata)[0]

    def cast(self, name: str, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """x as another dtype."""
        return self.node("Cast", name, [x], {"to": int(dtype)})

    def cached_cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """As `cast`, once for all who ask: for constants that many share."""
        name = f"{x.name}.{dtype.name.lower()}"
        if name not in self._casts:
            self._casts[name] = self.cast(name, x, dtype)
        return self._casts[name]

    def model(self, outputs: Sequence[ir.Value], metadata: Mapping[str, str]) -> ir.Model:
        """The finished model; nothing in it depends on the machine or the time."""
        graph = ir.Graph(
            self.inputs,
            outputs,
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": OPSET, MICROSOFT: 1},
            name="decoder",
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="satchel", metadata_props=dict(metadata))
