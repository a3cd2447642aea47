"""Codes below 8 bits, packed into bytes, low bits first, as all three formats store 4-bit values."""

from __future__ import annotations

import numpy as np


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """uint8 codes < 16, any shape -> uint8 [ceil(n / 2)]; the first code in the low nibble."""
    flat = np.ascontiguousarray(codes, np.uint8).ravel()
    if flat.size % 2:
        flat = np.append(flat, np.uint8(0))
    return np.asarray(flat[0::2] | (flat[1::2] << 4), np.uint8)


def unpack_nibbles(packed: np.ndarray, count: int) -> np.ndarray:
    """The inverse of pack_nibbles: uint8 [count]."""
    out = np.empty(packed.size * 2, np.uint8)
    out[0::2] = packed & 15
    out[1::2] = packed >> 4
    return out[:count]
