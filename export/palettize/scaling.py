"""A compressed matrix whose scales are moved by the gradient of a loss, instead of being fitted to given weights.

Codes, zero points and LUTs stay; scales move by shares of themselves, by steps of Adam (Kingma and Ba, ICLR 2015).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numba import njit

from satchel.export.palettize.affine import round_scale
from satchel.export.palettize.fit import split_exponent
from satchel.export.palettize.tensors import AffineTensor, PalettizedTensor

DECAY, SQUARE_DECAY = 0.9, 0.95
"""Of Adam's moments."""
LEAST = 0.5
"""Of its beginning that a scale keeps."""


class Scaling:
    """A matrix on its way from what rounding made of it.

    Attributes:
        values: float32 [rows, columns], what the matrix is now; changed in place.
        state: name -> float32 [rows, blocks], all that the next steps depend on; changed in place.

    Args:
        start: affine codes without minima, or a palette, whose rows are one block each.
    """

    def __init__(self, start: AffineTensor | PalettizedTensor) -> None:
        self._start = start
        if isinstance(start, AffineTensor):
            blocks = start.code.reshape(start.shape[0], -1, start.block).astype(np.int16)
            self._units, self._first = (blocks - start.zero_point[:, :, None]).reshape(start.shape), start.scale
        else:
            self._units, self._first = start.codes().astype(np.int16), start.row_scale()[:, None]
        self.state = {name: np.zeros_like(self._first) for name in ("scales", "moments", "squares")}
        self.values = np.empty(start.shape, np.float32)
        self.reset()

    def reset(self) -> None:
        """Goes back to the beginning."""
        nothing = np.zeros_like(self._first)
        self.load({"scales": self._first, "moments": nothing, "squares": nothing})

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from a `state` of before."""
        for name, values in state.items():
            self.state[name][:] = values
        _expand(self._units, self.state["scales"], self.values)

    def step(self, gradient: np.ndarray, number: int, rate: float) -> None:
        """One step of Adam.

        Args:
            gradient: of the loss, float32 [rows, columns], at `values`.
            number: of the step, from 1 on.
            rate: how far the step goes at most, or nearly so, as a share of the scale at the beginning.
        """
        slopes, state = np.empty_like(self._first), self.state
        _slopes(self._units, gradient, slopes)
        slopes *= self._first
        state["moments"] += np.float32(1 - DECAY) * (slopes - state["moments"])
        state["squares"] += np.float32(1 - SQUARE_DECAY) * (slopes * slopes - state["squares"])
        sizes = np.sqrt(state["squares"] / np.float32(1 - SQUARE_DECAY**number))
        shares = state["moments"] / np.float32(1 - DECAY**number) / np.where(sizes > 0, sizes, np.float32(1))
        moved = state["scales"] - np.float32(rate) * self._first * shares
        np.maximum(moved, np.float32(LEAST) * self._first, out=state["scales"])
        _expand(self._units, state["scales"], self.values)

    def matrix(self) -> AffineTensor | PalettizedTensor:
        """What it is now, scales rounded to what files hold."""
        start, scales = self._start, self.state["scales"]
        if isinstance(start, AffineTensor):
            rounded = round_scale(scales, start.scale_dtype)
            return AffineTensor(start.code, rounded, start.zero_point, start.block, start.scale_dtype, start.bits)
        parts = [split_exponent(part) for part in np.split(scales[:, 0], start.groups)]
        exponents, halves = np.array([e for e, _ in parts], np.int8), np.concatenate([h for _, h in parts])
        return PalettizedTensor(start.index, start.lut, exponents, halves, start.bits)


@njit(cache=True, nogil=True)
def _expand(units: np.ndarray, scales: np.ndarray, values: np.ndarray) -> None:
    block = units.shape[1] // scales.shape[1]
    for r in range(units.shape[0]):
        for b in range(scales.shape[1]):
            s = scales[r, b]
            for c in range(b * block, (b + 1) * block):
                values[r, c] = np.float32(units[r, c]) * s


@njit(cache=True, nogil=True)
def _slopes(units: np.ndarray, gradient: np.ndarray, slopes: np.ndarray) -> None:
    """Of the loss, for each scale."""
    block = units.shape[1] // slopes.shape[1]
    for r in range(units.shape[0]):
        for b in range(slopes.shape[1]):
            total = np.float32(0)
            for c in range(b * block, (b + 1) * block):
                total += gradient[r, c] * np.float32(units[r, c])
            slopes[r, b] = total
