"""Codes below 8 bits, packed into bytes, low bits first, as all three formats store 4-bit values."""

from __future__ import annotations

import numpy as np


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """uint8 codes < 16, [..., n] -> uint8 [..., ceil(n / 2)]; of each pair the first in the low nibble."""
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], -1)
    return np.asarray(codes[..., 0::2] | (codes[..., 1::2] << 4), np.uint8)


def unpack_nibbles(packed: np.ndarray, count: int) -> np.ndarray:
    """The inverse of pack_nibbles: uint8 [count]."""
    out = np.empty(packed.size * 2, np.uint8)
    out[0::2] = packed & 15
    out[1::2] = packed >> 4
    return out[:count]


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes < 2**bits of any shape -> uint8 [ceil(bits * n / 8)], each code's low bit first."""
    flat = codes.reshape(-1)
    if bits == 4:
        return pack_nibbles(flat)
    planes = (flat[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(planes, bitorder="little")
