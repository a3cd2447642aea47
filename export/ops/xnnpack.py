"""An XNNPACK graph for ExecuTorch's delegate, built value by value: what one delegate call computes.

The classes of executorch's own schema are filled in directly, so nothing is traced or partitioned. Weights are not in
the graph: each is a named blob of the .pte file, under its canonical name, so that the file describes itself.

Shapes hold the longest sequence; XNNPACK takes the actual length from its inputs at each call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from satchel.export.ops.executorch_tools import serialize_xnnpack_binary, xnn
from satchel.export.palettize.packing import pack_nibbles
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor
from satchel.runtime.errors import FormatError

NO_ID = 2**32 - 1
"""What XNNPACK calls an invalid value id: no bias, or not an external value."""
NAMED = 2**64 - 1
"""The offset of a constant that lies in the .pte's named data."""
EXTERNAL_INPUT, EXTERNAL_OUTPUT = 1, 2
NO_DEBUG_HANDLE = 65535


@dataclass(frozen=True)
class Blob:
    """Bytes of the file that are made only when they are written.

    Attributes:
        key: unique in the file; the canonical name for codes, and `<name>.scale`, `<name>.bias` beside it.
        size: in bytes.
        load: gives an array of that size, C-contiguous, little-endian.
    """

    key: str
    size: int
    load: Callable[[], np.ndarray]


def array_blob(key: str, array: np.ndarray) -> Blob:
    """A blob of a small array that is held until it is written."""
    return Blob(key, array.nbytes, lambda: array)


class XnnGraph:
    """One delegate's graph. Values are ids; `dims[id]` is each one's shape."""

    def __init__(self) -> None:
        self.dims: list[tuple[int, ...]] = []
        self.blobs: dict[str, Blob] = {}
        self._tensors: list[xnn.XNNTensorValue] = []
        self._values: list[xnn.XValue] = []
        self._nodes: list[xnn.XNode] = []
        self._constants = [xnn.ConstantDataOffset(0, 0)]
        self._externals = 0
        self._named: dict[str, int] = {}

    def _value(
        self,
        dims: tuple[int, ...],
        datatype: xnn.XNNDatatype,
        constant: int = 0,
        quant: xnn.XNNQuantParams | None = None,
    ) -> int:
        tensor = xnn.XNNTensorValue(datatype, len(dims), list(dims), constant, NO_ID, 0, len(self._values))
        self._tensors.append(tensor)
        self._values.append(xnn.XValue(tensor if quant is None else xnn.XNNQuantizedTensorValue(tensor, quant)))
        self.dims.append(dims)
        return len(self._values) - 1

    def _fp32(self, dims: tuple[int, ...]) -> int:
        return self._value(dims, xnn.XNNDatatype.xnn_datatype_fp32)

    def _external(self, value: int, flag: int) -> int:
        self._tensors[value].flags |= flag
        self._tensors[value].external_id = self._externals
        self._externals += 1
        return self._externals - 1

    def add_input(self, dims: tuple[int, ...]) -> int:
        """A further argument of the delegate call, fp32."""
        value = self._fp32(dims)
        self._external(value, EXTERNAL_INPUT)
        return value

    def mark_output(self, value: int) -> int:
        """Makes a value an argument that the call fills; returns its place among the arguments."""
        return self._external(value, EXTERNAL_OUTPUT)

    def _node(self, node: Any) -> None:
        self._nodes.append(xnn.XNode(node, NO_DEBUG_HANDLE))

    def unary(self, kind: type, x: int) -> int:
        """A node of one input, such as xnn.XNNSigmoid."""
        out = self._fp32(self.dims[x])
        self._node(kind(x, out, 0))
        return out

    def binary(self, kind: type, x: int, y: int) -> int:
        """A node of two inputs that broadcast as numpy's do."""
        out = self._fp32(np.broadcast_shapes(self.dims[x], self.dims[y]))
        self._node(kind(x, y, out, 0))
        return out

    def reshape(self, x: int, dims: tuple[int, ...]) -> int:
        """A [1, sequence, ...] value in another shape [1, sequence, ...]; 0 lets XNNPACK infer the sequence."""
        out = self._fp32(dims)
        self._node(xnn.XNNStaticReshape(len(dims), [dims[0], 0, *dims[2:]], x, out, 0))
        return out

    def inferred(self, x: int, dims: tuple[int, ...]) -> int:
        """A value in another shape, whose third axis follows from the length of the input."""
        out = self._fp32(dims)
        self._node(xnn.XNNStaticReshape(len(dims), [*dims[:2], 0, *dims[3:]], x, out, 0))
        return out

    def transpose(self, x: int, order: tuple[int, ...]) -> int:
        """Axes in another order."""
        out = self._fp32(tuple(self.dims[x][i] for i in order))
        self._node(xnn.XNNStaticTranspose(len(order), list(order), x, out, 0))
        return out

    def shaped(self, x: int, dims: tuple[int, ...]) -> int:
        """A value in another shape that no length of an input changes."""
        out = self._fp32(dims)
        self._node(xnn.XNNStaticReshape(len(dims), list(dims), x, out, 0))
        return out

    def cut(self, x: int, starts: tuple[int, ...], sizes: tuple[int, ...]) -> int:
        """A part of a value of a fixed shape."""
        out = self._fp32(sizes)
        self._node(xnn.XNNStaticSlice(len(sizes), list(starts), list(sizes), x, out, 0))
        return out

    def padded(self, x: int, before: tuple[int, ...]) -> int:
        """A value with so many zeros before it on each axis."""
        out = self._fp32(tuple(n + more for n, more in zip(self.dims[x], before, strict=True)))
        self._node(xnn.XNNStaticConstantPad(list(before), [0] * len(before), 0.0, x, out, 0))
        return out

    def product(self, x: int, y: int) -> int:
        """x [..., n, k] times y [..., k, m]."""
        out = self._fp32((*self.dims[x][:-1], self.dims[y][-1]))
        self._node(xnn.XNNBatchMatrixMultiply(x, y, out, 0))
        return out

    def quantize(self, x: int) -> int:
        """int8 with a scale and a zero point for each token, found at each call."""
        quant = xnn.PerTokenDynamicQuant(num_nonbatch_dims=1)
        out = self._value(self.dims[x], xnn.XNNDatatype.xnn_datatype_qdint8, quant=quant)
        self._node(xnn.XNNConvert(x, out, 0))
        return out

    def _constant(self, blob: Blob) -> int:
        self.blobs[blob.key] = blob
        self._constants.append(xnn.ConstantDataOffset(offset=NAMED, size=blob.size, named_key=blob.key))
        return len(self._constants) - 1

    def constant(self, blob: Blob, dims: tuple[int, ...]) -> int:
        """An fp32 constant. Only a fully connected node may use it: XNNPACK copies that node's, no other's."""
        if blob.key not in self._named:
            self._named[blob.key] = self._value(dims, xnn.XNNDatatype.xnn_datatype_fp32, self._constant(blob))
        return self._named[blob.key]

    def filter(self, name: str, matrix: Matrix, load: Callable[[], Matrix]) -> int:
        """The weights of a fully connected node, in the scheme of the matrix."""
        if isinstance(matrix, PalettizedTensor):
            return self._rowwise_int8(name, matrix, load)
        if isinstance(matrix, AffineTensor):
            return self._blockwise_int4(name, matrix, load)
        return self.constant(fp32_blob(name, matrix, load), matrix.shape)

    def _rowwise_int8(self, name: str, matrix: PalettizedTensor, load: Callable[[], Matrix]) -> int:
        codes, scales = int8_blobs(name, matrix, load)
        constant, scale = self._constant(codes), self._constant(scales)
        quant = xnn.PerChannelQuant([], channel_dim=0, scale_buffer_idx=scale, num_scales=matrix.shape[0])
        return self._value(matrix.shape, xnn.XNNDatatype.xnn_datatype_qcint8, constant, quant)

    def _blockwise_int4(self, name: str, matrix: AffineTensor, load: Callable[[], Matrix]) -> int:
        codes, scales = int4_blobs(name, matrix, load)
        constant, scale = self._constant(codes), self._constant(scales)
        quant = xnn.PerChannelGroupQuant(
            [], channel_dim=0, group_size=matrix.block, scale_buffer_idx=scale, num_scales=matrix.scale.size
        )
        return self._value(matrix.shape, xnn.XNNDatatype.xnn_datatype_qbint4, constant, quant)

    def fully_connected(self, x: int, weights: int, bias: int = NO_ID) -> int:
        """x [..., columns] times the transpose of weights [rows, columns], plus bias [rows]."""
        out = self._fp32((*self.dims[x][:-1], self.dims[weights][0]))
        self._node(xnn.XNNFullyConnected(x, weights, bias, out, 0))
        return out

    def serialize(self) -> bytes:
        """The delegate's payload; the same graph gives the same bytes."""
        inputs = [t.id_out for t in self._tensors if t.flags & EXTERNAL_INPUT]
        outputs = [t.id_out for t in self._tensors if t.flags & EXTERNAL_OUTPUT]
        graph = xnn.XNNGraph(
            version="0",
            xnodes=self._nodes,
            xvalues=self._values,
            num_externs=self._externals,
            input_ids=inputs,
            output_ids=outputs,
            constant_data=self._constants,
        )
        return bytes(serialize_xnnpack_binary(graph, bytearray()))


def fp32_blob(name: str, matrix: Matrix, load: Callable[[], Matrix]) -> Blob:
    """A matrix as fp32, dequantized when it is written."""
    return Blob(name, 4 * matrix.shape[0] * matrix.shape[1], lambda: load().dequantize())


def int8_blobs(name: str, matrix: PalettizedTensor, load: Callable[[], Matrix]) -> tuple[Blob, Blob]:
    """int8 codes [rows, columns] and fp32 scales [rows]: the palette's values exactly."""
    rows, columns = matrix.shape

    def loaded() -> PalettizedTensor:
        return cast(PalettizedTensor, load())

    codes = Blob(name, rows * columns, lambda: loaded().codes())
    return codes, Blob(f"{name}.scale", 4 * rows, lambda: loaded().row_scale())


def int4_blobs(name: str, matrix: AffineTensor, load: Callable[[], Matrix]) -> tuple[Blob, Blob]:
    """Codes with 8 for zero, two a byte with the even column low, and bfloat16 scales [rows, blocks].

    Raises FormatError for what XNNPACK has no kernel for: zero points, blocks that are no multiple of 32, and scales
    that bfloat16 would round.
    """
    exact = not (matrix.scale.view(np.uint32) & 0xFFFF).any()
    if not (matrix.symmetric and matrix.block % 32 == 0 and exact):
        zero, dtype = "no zero points" if matrix.symmetric else "zero points", "bfloat16" if exact else "wider"
        raise FormatError(
            "XNNPACK cannot take this int4 matrix",
            got=f"{name} with {zero}, blocks of {matrix.block}, {dtype} scales",
            wanted="no zero points, blocks of a multiple of 32, bfloat16 scales",
            hint="quantize it symmetrically, with scale_dtype bfloat16",
        )
    rows, columns = matrix.shape

    def loaded() -> AffineTensor:
        return cast(AffineTensor, load())

    codes = Blob(name, rows * columns // 2, lambda: pack_nibbles(loaded().code))
    return codes, Blob(f"{name}.scale", 2 * matrix.scale.size, lambda: upper_half(loaded().scale))


def upper_half(values: np.ndarray) -> np.ndarray:
    """float32 whose lower 16 bits are zero -> bfloat16, as uint16."""
    return np.asarray(values.view(np.uint32) >> 16).astype("<u2")
