"""One compressed matrix -> blobs in the store, and the MIL ops that stand for it in each function that uses it.

palette, int8   constexpr_lut_to_dense: codes of 1, 2, 3, 4, 6 or 8 bits into entries lut * 2**exponent, exact in fp16
                (3 bits came with iOS18; before, 4 are taken); the row scales stay outside, multiplied after the conv
                or linear. int8 uses the same op and not an affine one, since
                it is the same from iOS16 to iOS18, works for gather as for conv, and keeps the scale outside too.
int4, and 8 bits by block
                constexpr_blockwise_shift_scale, which came with iOS18. Blocks that begin at a minimum are
                scale * (code - 8 - zero) with a float for zero, small where the block lies around 0: its rounding to
                the program's precision moves the block by 1/2048 of its middle at the most.
fp16, fp32      a const.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from satchel.devices.errors import PlanError
from satchel.export.ops.mil_builder import Var, mb
from satchel.export.ops.mil_store import ALIGNMENT, BlobStore, code_dtype
from satchel.export.palettize.packing import pack_bits
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor, PlainTensor
from satchel.export.palettize.widths import fitting


@dataclass(frozen=True)
class StoredMatrix:
    """What a function must know of a matrix whose data lie in the store.

    Attributes:
        name: in the program.
        key: what its keys in the store begin with.
        shape: (rows, columns).
        kind: "lut", "affine" or "plain".
        bits: of a code.
        groups: of rows with a LUT each (lut), or of columns with a scale each (affine).
        signed: codes in two's complement; without zero points unless these are `floating`.
        floating: zero points are floats.
    """

    name: str
    key: str
    shape: tuple[int, int]
    kind: str
    bits: int
    groups: int = 1
    signed: bool = False
    floating: bool = False

    @property
    def scaled(self) -> bool:
        """Whether there is a row scale to multiply with afterwards."""
        return self.kind == "lut"


@dataclass(frozen=True)
class LutKind:
    """How a palette is stored.

    Attributes:
        bits: of an index.
        groups: LUTs.
        dtype: np.float16 or np.float32, of the entries.
        blockwise: iOS18's form of the op.
    """

    bits: int
    groups: int
    dtype: type
    blockwise: bool


def put_index(store: BlobStore, key: str, index: np.ndarray, bits: int, *, blockwise: bool) -> None:
    """Stores the indices of a palette; `lut_to_dense` reads them."""
    if blockwise or bits == 8:
        store.put_codes(f"{key}__index", index, bits)
    else:
        store.put(f"{key}__index", pack_bits(index, bits))


def put_lut(store: BlobStore, key: str, m: PalettizedTensor, dtype: type) -> None:
    """Stores the LUTs of a palette, exponents and all; `lut_to_dense` reads them."""
    entries: np.ndarray = np.ldexp(m.lut.astype(np.float32), m.exponent.astype(np.int32)[:, None])
    store.put(f"{key}__lut", entries.astype(dtype))


def lut_to_dense(store: BlobStore, key: str, name: str, shape: tuple[int, ...], kind: LutKind) -> Var:
    """The constexpr op of a palette in the current MIL function: codes into entries, without row scales.

    Args:
        store: has its indices and LUTs.
        key: under which.
        name: of its output.
        shape: of the output, whose elements the indices are in order.
        kind: how it is stored.
    """
    index, lut, ones = f"{key}__index", f"{key}__lut", (1,) * (len(shape) - 1)
    if kind.blockwise:
        return mb.constexpr_lut_to_dense(
            indices=store.const(index, shape, code_dtype(kind.bits)),
            lut=store.const(lut, (kind.groups, *ones, 2**kind.bits, 1), kind.dtype),
            name=name,
        )
    return mb.constexpr_lut_to_dense(
        indices=store.const(index, (_packed_bytes(shape, kind.bits),), np.uint8),
        lut=store.const(lut, (2**kind.bits,), kind.dtype),
        shape=np.array(shape, np.uint32),
        name=name,
    )


class MatrixStore:
    """Stores matrices for a target and a precision, each once.

    Args:
        store: where the blobs go.
        blockwise: whether the target has iOS18's constexpr ops: LUTs for groups of rows, and int4 by block.
        dtype: np.float16 or np.float32, of the program's arithmetic.
    """

    def __init__(self, store: BlobStore, *, blockwise: bool, dtype: type) -> None:
        self.store = store
        self.blockwise = blockwise
        self.dtype = dtype
        self._stored: dict[str, StoredMatrix] = {}
        self._parts: dict[str, list[StoredMatrix]] = {}
        self._compressed: set[str] = set()

    def matrix(self, name: str, read: Callable[[], Matrix]) -> StoredMatrix:
        """Stores a matrix under `name`, reading it unless it is stored already."""
        if name not in self._stored:
            self._stored[name] = self._put(name, self._fitting(read()))
        return self._stored[name]

    def parts(self, whole: str, names: list[str], read: Callable[[], Matrix], shared: bool) -> list[StoredMatrix]:
        """Stores consecutive rows of a matrix as matrices of their own.

        Args:
            whole: name of the matrix.
            names: of the parts; the last stay unused where rows are few.
            read: gives the whole matrix.
            shared: the whole is in the store, so point into its codes instead of copying them.
        """
        if names[0] not in self._parts:
            matrix = self._fitting(read())
            bounds = _row_bounds(matrix, len(names))
            self._parts[names[0]] = [
                self._part(whole, name, matrix, start, stop, shared)
                for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=False)
            ]
        return self._parts[names[0]]

    def taken(self) -> set[str]:
        """Names of the matrices that were made by constexpr ops since the last time that this was asked."""
        names, self._compressed = self._compressed, set()
        return names

    def dense(self, stored: StoredMatrix, shape: tuple[int, ...]) -> Var:
        """The matrix in the current MIL function, as (rows, columns) or with 1s behind."""
        if stored.kind == "plain":
            return self.store.const(stored.key, shape, self.dtype, name=stored.name)
        self._compressed.add(stored.name)
        return self._lut(stored, shape) if stored.kind == "lut" else self._affine(stored, shape)

    def scale(self, stored: StoredMatrix, shape: tuple[int, ...]) -> Var:
        """The row scales in the current MIL function."""
        return self.store.const(f"{stored.key}__scale", shape, self.dtype, name=f"{stored.name}__scale")

    def _lut(self, stored: StoredMatrix, shape: tuple[int, ...]) -> Var:
        kind = LutKind(stored.bits, stored.groups, self.dtype, self.blockwise)
        return lut_to_dense(self.store, stored.key, stored.name, shape, kind)

    def _affine(self, stored: StoredMatrix, shape: tuple[int, ...]) -> Var:
        rows, columns, *ones = shape
        codes, blocks = code_dtype(stored.bits, stored.signed), (rows, stored.groups, *ones)
        zeros = self.dtype if stored.floating else codes
        offset = (
            None if stored.signed and not stored.floating else self.store.const(f"{stored.key}__zero", blocks, zeros)
        )
        return mb.constexpr_blockwise_shift_scale(
            data=self.store.const(f"{stored.key}__index", (rows, columns, *ones), codes),
            scale=self.store.const(f"{stored.key}__blocks", blocks, self.dtype),
            offset=offset,
            name=stored.name,
        )

    def _fitting(self, m: Matrix) -> Matrix:
        """A palette with indices as wide as the target has them."""
        return m.widened(fitting(m.bits, blockwise=self.blockwise)) if isinstance(m, PalettizedTensor) else m

    def _put(self, name: str, m: Matrix) -> StoredMatrix:
        if isinstance(m, PlainTensor):
            self._check_plain(name, m)
            self.store.put(name, m.values.astype(self.dtype, copy=False))
            return StoredMatrix(name, name, m.shape, "plain", m.bits)
        if isinstance(m, AffineTensor):
            return self._put_affine(name, m)
        self._check_palette(name, m)
        self._put_index(name, m)
        return self._put_palette(name, m)

    def _put_index(self, name: str, m: PalettizedTensor) -> None:
        put_index(self.store, name, m.index, m.bits, blockwise=self.blockwise)

    def _put_palette(self, name: str, m: PalettizedTensor) -> StoredMatrix:
        """Everything of a palette but its codes."""
        put_lut(self.store, name, m, self.dtype)
        self.store.put(f"{name}__scale", m.scale.astype(self.dtype))
        return StoredMatrix(name, name, m.shape, "lut", m.bits, m.groups)

    def _put_affine(self, name: str, m: AffineTensor) -> StoredMatrix:
        self._check_affine(name, m)
        if m.minimum is not None:
            return self._put_from_minimum(name, m, m.minimum)
        signed = m.symmetric
        codes = (m.code.astype(np.int16) - 2 ** (m.bits - 1)).astype(np.int8) if signed else m.code
        self.store.put_codes(f"{name}__index", codes, m.bits, signed)
        self.store.put(f"{name}__blocks", m.scale.astype(self.dtype))
        if not signed:
            self.store.put_codes(f"{name}__zero", m.zero_point, m.bits)
        return StoredMatrix(name, name, m.shape, "affine", m.bits, m.scale.shape[1], signed)

    def _put_from_minimum(self, name: str, m: AffineTensor, minimum: np.ndarray) -> StoredMatrix:
        """A block whose scale is lost in the rounding of its minimum is constant: code 0 of a scale of -minimum."""
        middle = 2 ** (m.bits - 1)
        constant = np.abs(minimum) > np.abs(m.scale) * 4 * middle / np.finfo(self.dtype).eps
        scale = np.where(constant, -minimum, m.scale)
        zero = np.divide(-minimum, scale, out=np.zeros_like(scale), where=scale != 0) - np.where(constant, 0, middle)
        code = (m.code.astype(np.int16) - middle).astype(np.int8) * np.repeat(~constant, m.block, axis=1)
        self.store.put_codes(f"{name}__index", code, m.bits, signed=True)
        self.store.put(f"{name}__blocks", scale.astype(self.dtype))
        self.store.put(f"{name}__zero", zero.astype(self.dtype))
        return StoredMatrix(name, name, m.shape, "affine", m.bits, m.scale.shape[1], signed=True, floating=True)

    def _part(self, whole: str, name: str, m: Matrix, start: int, stop: int, shared: bool) -> StoredMatrix:
        rows = _rows(m, start, stop)
        byte, bits = start * m.shape[1] * m.bits // 8, stop * m.shape[1] * m.bits
        if not shared or byte % ALIGNMENT or bits % 8 or isinstance(m, AffineTensor):
            return self._put(name, rows)
        size = bits // 8 - byte
        if isinstance(rows, PalettizedTensor):
            self.store.alias(f"{name}__index", f"{whole}__index", byte, size)
            return self._put_palette(name, rows)
        self.store.alias(name, whole, byte, size)
        return StoredMatrix(name, name, rows.shape, "plain", rows.bits)

    def _check_plain(self, name: str, m: PlainTensor) -> None:
        if m.bits == 32 and self.dtype is np.float16:
            raise PlanError(
                "an fp32 matrix in a program of fp16 arithmetic",
                got=name,
                wanted="fp16 values, or fp32 for every matrix",
                hint="choose the weights fp16, or fp32 for the whole model",
            )

    def _check_palette(self, name: str, m: PalettizedTensor) -> None:
        if m.groups > 1 and not self.blockwise:
            raise PlanError(
                "a LUT for each group of rows came with iOS18",
                got=f"{name} with {m.groups} LUTs",
                wanted="one LUT a tensor",
                hint="take the target iOS18, or lut_groups = tensor",
            )

    def _check_affine(self, name: str, m: AffineTensor) -> None:
        if not self.blockwise:
            raise PlanError(
                "weights with a scale for each block came with iOS18",
                got=name,
                wanted="a palette",
                hint="take the target iOS18, or the weights palette",
            )
        if self.dtype is np.float16 and not np.array_equal(m.scale.astype(np.float16).astype(np.float32), m.scale):
            raise PlanError(
                "block scales that fp16 cannot hold exactly",
                got=f"{name} with {m.scale_dtype} scales",
                wanted="scale_dtype float16",
                hint="quantize for Core ML apart from XNNPACK",
            )


def _packed_bytes(shape: tuple[int, ...], bits: int) -> int:
    return -(-int(np.prod(shape)) * bits // 8)


def _row_bounds(m: Matrix, count: int) -> list[int]:
    """Where parts of about equal size begin and end, on whole groups of rows that share a LUT."""
    rows = m.shape[0]
    unit = rows // m.groups if isinstance(m, PalettizedTensor) and m.groups > 1 else 1
    size = -(-rows // (count * unit)) * unit
    return [*range(0, rows, size), rows]


def _rows(m: Matrix, start: int, stop: int) -> Matrix:
    """Rows start .. stop - 1 as a matrix of their own."""
    part = slice(start, stop)
    if isinstance(m, PlainTensor):
        return PlainTensor(m.values[part])
    if isinstance(m, AffineTensor):
        minimum = None if m.minimum is None else m.minimum[part]
        return AffineTensor(m.code[part], m.scale[part], m.zero_point[part], m.block, m.scale_dtype, m.bits, minimum)
    luts = slice(None) if m.groups == 1 else slice(start * m.groups // m.shape[0], stop * m.groups // m.shape[0])
    return PalettizedTensor(m.index[part], m.lut[luts], m.exponent[luts], m.scale[part], m.bits)
