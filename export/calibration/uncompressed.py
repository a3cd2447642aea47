"""A checkpoint's tensors as the weights of an op set, not compressed."""

from __future__ import annotations

import numpy as np

from satchel.export.families.tensors import CanonicalTensors
from satchel.export.palettize.tensors import PlainTensor


class Uncompressed:
    """Implements `Weights` (export/ops/base.py); every tensor is read when it is asked for."""

    def __init__(self, tensors: CanonicalTensors) -> None:
        self._tensors = tensors
        self._names = frozenset(tensors.names())

    def matrix(self, name: str) -> PlainTensor:
        """Float32 values of a linear or an embedding; KeyError if there is none."""
        return PlainTensor(self._tensors.read(name))

    def vector(self, name: str) -> np.ndarray:
        """A norm gain or a bias, float32 [n]; KeyError if there is none."""
        return self._tensors.read(name)

    def has(self, name: str) -> bool:
        """Whether a matrix or vector of this name exists."""
        return name in self._names
