"""Codes of 1 to 8 bits, packed into bytes, low bits first, as all three formats store them."""

from __future__ import annotations

import numpy as np


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """uint8 codes < 16, [..., n] -> uint8 [..., ceil(n / 2)]; of each pair the first in the low nibble."""
    if codes.shape[-1] % 2:
        codes = np.concatenate([codes, np.zeros((*codes.shape[:-1], 1), np.uint8)], -1)
    pairs = np.ascontiguousarray(codes, np.uint8).view("<u2")  # first | second << 8, which strides would read slowly
    return (pairs | (pairs >> 4)).astype(np.uint8)


def unpack_nibbles(packed: np.ndarray, count: int) -> np.ndarray:
    """The inverse of pack_nibbles: uint8 [count]."""
    out = np.empty(packed.size * 2, np.uint8)
    out[0::2] = packed & 15
    out[1::2] = packed >> 4
    return out[:count]


def pack_bits(codes: np.ndarray, bits: int) -> np.ndarray:
    """uint8 codes < 2**bits of any shape -> uint8 [ceil(bits * n / 8)], each code's low bit first."""
    flat = np.ascontiguousarray(codes, np.uint8).reshape(-1)
    if bits == 8:
        return flat
    if bits == 4:
        return pack_nibbles(flat)
    eights = np.zeros((-(-flat.size // 8), 8), np.uint8)  # eight codes take a whole number of bytes: `bits` of them
    eights.reshape(-1)[: flat.size] = flat
    words = np.zeros(len(eights), "<u8")
    for place in range(8):
        words |= eights[:, place].astype("<u8") << np.uint64(place * bits)
    return words.view(np.uint8).reshape(-1, 8)[:, :bits].reshape(-1)[: -(-flat.size * bits // 8)]


def unpack_bits(packed: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of pack_bits: uint8 [count]."""
    if bits == 8:
        return packed[:count]
    if bits == 4:
        return unpack_nibbles(packed, count)
    size = -(-count // 8)
    rows = np.zeros(size * bits, np.uint8)
    rows[: packed.size] = packed
    words = np.zeros((size, 8), np.uint8)
    words[:, :bits] = rows.reshape(size, bits)
    joined, mask = words.view("<u8").reshape(-1), np.uint64(2**bits - 1)
    out = np.empty((size, 8), np.uint8)
    for place in range(8):
        out[:, place] = (joined >> np.uint64(place * bits)) & mask
    return out.reshape(-1)[:count]
