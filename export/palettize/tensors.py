"""The compressed matrices that every format is written from.

There are three kinds, and each can say exactly which fp32 values it stands for (`dequantize`), so that what is read
back out of a model file can be compared bit for bit (`digest`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from satchel.runtime.weights import digest

ALL = slice(None)


@dataclass(frozen=True)
class PalettizedTensor:
    """W[r, c] = scale[r] * 2**exponent[g] * lut[g, index[r, c]], with g = r // (rows / groups).

    Every factor and the product of the three is exact in fp32; lut * 2**exponent is exact in fp16.

    Attributes:
        index: uint8 [rows, columns], values below 2**bits.
        lut: int8 [groups, 2**bits].
        exponent: int8 [groups], >= -14 since fp16 subnormals are lost on the Neural Engine.
        scale: float16 [rows], >= 1.
        bits: 1, 2, 3, 4 or 6 for a palette, 8 for embeddings and heads (there lut is -128..127 in order).
    """

    index: np.ndarray
    lut: np.ndarray
    exponent: np.ndarray
    scale: np.ndarray
    bits: int

    def __post_init__(self) -> None:
        rows = self.index.shape[0]
        assert self.index.dtype == np.uint8 and self.index.ndim == 2
        assert self.lut.dtype == np.int8 and self.lut.shape == (self.groups, 2**self.bits)
        assert self.exponent.dtype == np.int8 and self.scale.dtype == np.float16 and self.scale.shape == (rows,)
        assert rows % self.groups == 0, "rows must divide into groups"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), that is (output channels, input channels)."""
        return (self.index.shape[0], self.index.shape[1])

    @property
    def groups(self) -> int:
        """How many LUTs there are, each for rows / groups consecutive rows."""
        return int(self.exponent.shape[0])

    def codes(self, rows: slice = ALL) -> np.ndarray:
        """int8 [rows, columns]: the LUT entry of each weight, for kernels that take int8 with a scale a row."""
        if self.groups == 1:
            return self.lut[0][self.index[rows]]
        group = np.repeat(np.arange(self.groups), self.shape[0] // self.groups)[rows]
        return self.lut[group[:, None], self.index[rows]]

    def row_scale(self) -> np.ndarray:
        """float32 [rows]: scale * 2**exponent, so that W = row_scale[:, None] * codes()."""
        power = np.repeat(np.ldexp(np.float32(1), self.exponent.astype(np.int32)), self.shape[0] // self.groups)
        return self.scale.astype(np.float32) * power.astype(np.float32)

    def dequantize(self, rows: slice = ALL) -> np.ndarray:
        """float32 [rows, columns], of all rows or some."""
        values = self.codes(rows).astype(np.float32)
        values *= self.row_scale()[rows, None]
        return values

    def widened(self, bits: int) -> PalettizedTensor:
        """The same values with indices of more bits; LUT entries that no index names repeat the last."""
        if bits == self.bits:
            return self
        lut = np.pad(self.lut, ((0, 0), (0, 2**bits - 2**self.bits)), mode="edge")
        return PalettizedTensor(self.index, lut, self.exponent, self.scale, bits)

    @property
    def stored_bytes(self) -> int:
        """Bytes in a file that packs codes and has LUTs and scales in fp16; 8 bits need no LUT of their own."""
        codes = (self.index.size * self.bits + 7) // 8
        return codes + 2 * self.scale.size + (2 * self.lut.size if self.bits < 8 else 0)

    def digest(self) -> str:
        """sha256 of dequantize() as little-endian fp32, row by row."""
        return digest(self.dequantize())

    def scheme(self) -> str:
        """The scheme as manifests name it."""
        return f"palette{self.bits}" if self.bits < 8 else "int8"


@dataclass(frozen=True)
class AffineTensor:
    """W[r, b*block + j] = scale[r, b] * (code[r, b*block + j] - zero_point[r, b]) + minimum[r, b].

    Attributes:
        code: uint8 [rows, columns], below 2**bits.
        scale: float32 [rows, columns / block], already rounded to `scale_dtype`.
        zero_point: uint8 [rows, columns / block]; 2**(bits - 1) everywhere in the symmetric case.
        block: weights along a row that share a scale, 32.
        scale_dtype: what the scales are exact in; "bfloat16" for XNNPACK, "float16" elsewhere.
        bits: of a code, 4 or 8.
        minimum: float32 [rows, columns / block], exact in `scale_dtype`: what code 0 stands for where zero points are
            0 and blocks begin anywhere, as GGUF's Q4_1 has it; None elsewhere.
    """

    code: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    block: int
    scale_dtype: Literal["float16", "bfloat16"]
    bits: int = 4
    minimum: np.ndarray | None = None

    def __post_init__(self) -> None:
        rows, columns = self.code.shape
        assert self.code.dtype == np.uint8 and self.zero_point.dtype == np.uint8 and self.scale.dtype == np.float32
        assert columns % self.block == 0 and self.scale.shape == self.zero_point.shape == (rows, columns // self.block)
        if self.minimum is not None:
            assert self.minimum.dtype == np.float32 and self.minimum.shape == self.scale.shape
            assert not self.zero_point.any(), "blocks with a minimum have no zero point"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns), that is (output channels, input channels)."""
        return (self.code.shape[0], self.code.shape[1])

    @property
    def symmetric(self) -> bool:
        """Whether the zero point is in the middle everywhere, so that codes are signed with no zero point."""
        return self.minimum is None and bool((self.zero_point == 2 ** (self.bits - 1)).all())

    def dequantize(self, rows: slice = ALL) -> np.ndarray:
        """float32 [rows, columns], of all rows or some."""
        code = self.code[rows]
        values = code.reshape(code.shape[0], -1, self.block).astype(np.float32)
        values -= self.zero_point[rows, :, None]
        values *= self.scale[rows, :, None]
        if self.minimum is not None:
            values += self.minimum[rows, :, None]
        return values.reshape(code.shape)

    @property
    def stored_bytes(self) -> int:
        """Bytes in a file that packs codes, has 16-bit scales, and zero points as wide as codes unless symmetric."""
        zeros = 0 if self.symmetric else (self.zero_point.size * self.bits + 7) // 8
        minima = 0 if self.minimum is None else 2 * self.minimum.size
        return (self.code.size * self.bits + 7) // 8 + 2 * self.scale.size + (zeros if self.minimum is None else minima)

    def digest(self) -> str:
        """sha256 of dequantize() as little-endian fp32, row by row."""
        return digest(self.dequantize())

    def scheme(self) -> str:
        """The scheme as manifests name it."""
        return f"int{self.bits}-block{self.block}{'' if self.minimum is None else '-min'}"


@dataclass(frozen=True)
class PlainTensor:
    """A matrix kept as floating-point numbers.

    Attributes:
        values: float16 or float32 [rows, columns].
    """

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return (self.values.shape[0], self.values.shape[1])

    @property
    def bits(self) -> int:
        """16 or 32."""
        return self.values.dtype.itemsize * 8

    def dequantize(self, rows: slice = ALL) -> np.ndarray:
        """float32 [rows, columns], of all rows or some."""
        return self.values[rows].astype(np.float32)

    @property
    def stored_bytes(self) -> int:
        """Bytes in a file."""
        return int(self.values.nbytes)

    def digest(self) -> str:
        """sha256 of dequantize() as little-endian fp32, row by row."""
        return digest(self.dequantize())

    def scheme(self) -> str:
        """The scheme as manifests name it."""
        return "fp16" if self.bits == 16 else "fp32"


Matrix = PalettizedTensor | AffineTensor | PlainTensor
