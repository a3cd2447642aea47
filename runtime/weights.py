"""What is read back out of a model file: each weight's name, shape, bits, bytes and digest."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


def digest(values: np.ndarray) -> str:
    """sha256 (hex) of a matrix's values as little-endian fp32, rows by columns.

    Args:
        values: [rows, columns], any float dtype; converted to fp32 exactly where it is narrower.
    """
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<f4").data).hexdigest()


@dataclass(frozen=True)
class WeightRecord:
    """One weight matrix as found in a model file.

    Attributes:
        name: canonical name, such as "layers.0.self_attn.q_proj".
        shape: (rows, columns).
        bits: of one code as stored.
        bytes: that the file spends on it, codes, LUTs and scales; a shared blob counts once, at its first name.
        sha256: digest() of the dequantized values.
    """

    name: str
    shape: tuple[int, int]
    bits: int
    bytes: int
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self) | {"shape": list(self.shape)}
