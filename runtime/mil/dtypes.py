"""The element types of ML Programs: their numbers in the proto and in blob files, and how numpy holds them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from satchel.runtime.errors import FormatError


@dataclass(frozen=True)
class DType:
    """One element type.

    Attributes:
        name: numpy's name where numpy has the type ("float16", "int32"), else the format's ("uint4").
        proto: its number in the proto's DataType.
        blob: its number in a blob file's metadata; 0 where a blob cannot hold it.
        bits: of one element as stored; fewer than 8 are packed, low bits first.
        storage: the numpy type of the unpacked elements as stored.
    """

    name: str
    proto: int
    blob: int
    bits: int
    storage: str

    @property
    def is_float(self) -> bool:
        """Whether values are floating-point numbers."""
        return self.name.startswith(("float", "bfloat"))

    def nbytes(self, count: int) -> int:
        """Bytes that `count` packed elements take."""
        return (count * self.bits + 7) // 8


DTYPES = (
    DType("bool", 1, 0, 8, "bool"),
    DType("str", 2, 0, 0, "object"),
    DType("float16", 10, 1, 16, "<f2"),
    DType("float32", 11, 2, 32, "<f4"),
    DType("float64", 12, 0, 64, "<f8"),
    DType("bfloat16", 13, 5, 16, "<u2"),
    DType("int8", 21, 4, 8, "i1"),
    DType("int16", 22, 6, 16, "<i2"),
    DType("int32", 23, 14, 32, "<i4"),
    DType("int64", 24, 0, 64, "<i8"),
    DType("int4", 25, 8, 4, "i1"),
    DType("uint8", 31, 3, 8, "u1"),
    DType("uint16", 32, 7, 16, "<u2"),
    DType("uint32", 33, 15, 32, "<u4"),
    DType("uint64", 34, 0, 64, "<u8"),
    DType("uint4", 35, 11, 4, "u1"),
    DType("uint2", 36, 10, 2, "u1"),
    DType("uint1", 37, 9, 1, "u1"),
    DType("uint6", 38, 13, 6, "u1"),
    DType("uint3", 39, 12, 3, "u1"),
    DType("float8_e4m3fn", 40, 16, 8, "u1"),
    DType("float8_e5m2", 41, 17, 8, "u1"),
)
BY_PROTO = {d.proto: d for d in DTYPES}
BY_BLOB = {d.blob: d for d in DTYPES if d.blob}
BY_NAME = {d.name: d for d in DTYPES}

# `cast` and friends name types in the format's own words.
MIL_NAMES = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "string": "str"}


def by_proto(number: int) -> DType:
    """The type of a proto's DataType; FormatError for one that this version does not know."""
    if number not in BY_PROTO:
        raise FormatError("element type of an ML Program", got=number, wanted=sorted(BY_PROTO))
    return BY_PROTO[number]


def by_mil_name(name: str) -> DType:
    """The type that an op calls `name`, such as "fp16" or "int32"."""
    plain = MIL_NAMES.get(name, name)
    if plain not in BY_NAME:
        raise FormatError("element type named by an op", got=name, wanted=sorted(BY_NAME))
    return BY_NAME[plain]


def compute_type(dtype: DType) -> np.dtype:
    """The numpy type in which values of `dtype` are computed: fp32 for every narrower float."""
    if dtype.is_float:
        return np.dtype("float64" if dtype.name == "float64" else "float32")
    return np.dtype(dtype.storage)


def unpack(raw: np.ndarray, dtype: DType, count: int) -> np.ndarray:
    """Packed bytes -> `count` elements in the storage type.

    Args:
        raw: uint8 [>= dtype.nbytes(count)], elements packed with the low bits first.
        dtype: of the elements.
        count: how many there are.

    Returns:
        [count], a view of `raw` where nothing has to be unpacked.
    """
    raw = raw[: dtype.nbytes(count)]
    if dtype.bits >= 8:
        return raw.view(dtype.storage)
    if dtype.bits == 4:
        nibbles = np.stack([raw & 15, raw >> 4], axis=-1).reshape(-1)[:count]
        return ((nibbles ^ 8).astype(np.int8) - 8) if dtype.name == "int4" else nibbles
    bits = np.unpackbits(raw, bitorder="little")[: count * dtype.bits].reshape(count, dtype.bits)
    weights = (1 << np.arange(dtype.bits)).astype(np.uint8)
    return np.asarray(np.bitwise_or.reduce(bits * weights, axis=1))


def widen(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values as stored -> values as computed with (floats of 16 and 8 bits become float32, exactly)."""
    if dtype.name == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if dtype.name == "float8_e5m2":  # the upper half of a float16
        return (values.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    if dtype.name == "float8_e4m3fn":
        return _e4m3fn()[values]
    return values.astype(compute_type(dtype), copy=False)


@cache
def _e4m3fn() -> np.ndarray:
    """The value of every code of 4 exponent bits (bias 7) and 3 mantissa bits: no infinities, NaN where all are set."""
    codes = np.arange(128)
    exponent, mantissa = codes >> 3, (codes & 7) / 8
    positive = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7))
    positive[127] = np.nan
    return np.concatenate([positive, -positive]).astype(np.float32)
