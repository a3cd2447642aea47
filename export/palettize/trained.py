"""A matrix whose codes and scales are moved by the gradient of a loss, instead of being fitted to given weights.

Each weight has a position among the levels of its codes, a real number that is rounded to the code. The gradient at the
rounded value moves the position (a straight-through estimate), in units of one code, so that one rate serves matrices,
blocks and LUTs of any size; scales move by shares of themselves. Both are steps of Adam (Kingma and Ba, ICLR 2015),
which only the sign and the constancy of a gradient matter to. Levels, zero points and LUTs stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numba import njit

from satchel.export.palettize.affine import round_scale
from satchel.export.palettize.fit import split_exponent
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor

DECAY, SQUARE_DECAY = 0.9, 0.95
"""Of Adam's moments."""
EDGE = 0.49
"""How far beyond the first and the last level a position may lie."""
LEAST = 0.5
"""Of its beginning that a scale keeps."""


@dataclass(frozen=True)
class Rates:
    """How far one step goes at most, or nearly so.

    Attributes:
        position: codes.
        scale: share of the scale at the beginning.
    """

    position: float
    scale: float

    def times(self, factor: float) -> Rates:
        """Both, times a factor."""
        return Rates(self.position * factor, self.scale * factor)


class Trained:
    """A matrix on its way, from what rounding alone made of it.

    Attributes:
        values: float32 [rows, columns], what the matrix is now; changed in place.
        state: name -> float32 array, all that the next steps depend on; changed in place.

    Args:
        start: affine codes without minima, or a palette.
    """

    def __init__(self, start: AffineTensor | PalettizedTensor) -> None:
        self._start = start
        if isinstance(start, AffineTensor):
            self._codes, self._first, self._zeros = start.code, start.scale, start.zero_point.astype(np.float32)
            self._levels = np.arange(2**start.bits, dtype=np.float32)[None]
        else:
            self._codes, self._first = start.index, start.row_scale()[:, None]
            self._zeros, self._levels = np.zeros(self._first.shape, np.float32), start.lut.astype(np.float32)
        shapes = {"positions": start.shape, "moments": start.shape, "squares": start.shape}
        shapes |= dict.fromkeys(("scales", "scale_moments", "scale_squares"), self._first.shape)
        self.state = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self.values = np.empty(start.shape, np.float32)
        self.reset()

    def reset(self) -> None:
        """Goes back to the beginning."""
        self.load({name: np.float32(0) for name in self.state} | {"positions": self._codes, "scales": self._first})

    def load(self, state: Mapping[str, np.ndarray | np.float32]) -> None:
        """Goes on from a `state` of before."""
        for name, values in state.items():
            self.state[name][:] = values
        self._render()

    def _render(self) -> None:
        _render(self.state["positions"], self.state["scales"], self._zeros, self._levels, self.values)

    def step(self, gradient: np.ndarray, number: int, rates: Rates) -> None:
        """One step of Adam.

        Args:
            gradient: of the loss, float32 [rows, columns], at `values`.
            number: of the step, from 1 on.
            rates: of this step.
        """
        s, corrections = self.state, (1 / (1 - DECAY**number), 1 / (1 - SQUARE_DECAY**number))
        _move(
            s["positions"], s["moments"], s["squares"], s["scales"], s["scale_moments"], s["scale_squares"],
            self._first, self._zeros, self._levels, gradient,
            np.array([rates.position, rates.scale, *corrections], np.float32),
        )  # fmt: skip
        self._render()

    def matrix(self) -> Matrix:
        """What it is now, scales rounded to what files hold."""
        codes, scales, start = (
            np.floor(self.state["positions"] + 0.5).astype(np.uint8),
            self.state["scales"],
            self._start,
        )
        if isinstance(start, AffineTensor):
            rounded = round_scale(scales, start.scale_dtype)
            return AffineTensor(codes, rounded, start.zero_point, start.block, start.scale_dtype, start.bits)
        parts = [split_exponent(part) for part in np.split(scales[:, 0], start.groups)]
        exponents, halves = np.array([e for e, _ in parts], np.int8), np.concatenate([h for _, h in parts])
        return PalettizedTensor(codes, start.lut, exponents, halves, start.bits)


@njit(cache=True, nogil=True)
def _render(
    positions: np.ndarray, scales: np.ndarray, zeros: np.ndarray, levels: np.ndarray, values: np.ndarray
) -> None:
    rows, blocks = scales.shape
    block, size = positions.shape[1] // blocks, rows // levels.shape[0]
    for r in range(rows):
        table = levels[r // size]
        for b in range(blocks):
            s, z = scales[r, b], zeros[r, b]
            for c in range(b * block, (b + 1) * block):
                values[r, c] = (table[int(np.floor(positions[r, c] + np.float32(0.5)))] - z) * s


@njit(cache=True, nogil=True)
def _adam(m: Any, v: Any, gradient: Any, rates: np.ndarray) -> tuple[Any, Any, Any]:
    """Both moments after a gradient, and the step before its rate."""
    m += np.float32(1 - DECAY) * (gradient - m)
    v += np.float32(1 - SQUARE_DECAY) * (gradient * gradient - v)
    size = sqrt(v * rates[3])
    return m, v, (m * rates[2] / size if size > 0 else np.float32(0))


@njit(cache=True, nogil=True)
def _move(
    positions: np.ndarray, moments: np.ndarray, squares: np.ndarray, scales: np.ndarray, scale_moments: np.ndarray,
    scale_squares: np.ndarray, first: np.ndarray, zeros: np.ndarray, levels: np.ndarray, gradient: np.ndarray,
    rates: np.ndarray,
) -> None:  # fmt: skip
    """A step of all positions and scales, in place; rates are those of both, and Adam's corrections."""
    rows, blocks = scales.shape
    block, size, last = positions.shape[1] // blocks, rows // levels.shape[0], levels.shape[1] - 1
    for r in range(rows):
        table = levels[r // size]
        for b in range(blocks):
            slope = np.float32(0)
            for c in range(b * block, (b + 1) * block):
                g, k = gradient[r, c], int(np.floor(positions[r, c] + np.float32(0.5)))
                slope += g * (table[k] - zeros[r, b])
                low, high = max(k - 1, 0), min(k + 1, last)
                gap = (table[high] - table[low]) / np.float32(high - low)
                m, v, step = _adam(moments[r, c], squares[r, c], g * scales[r, b] * gap, rates)
                moments[r, c], squares[r, c] = m, v
                positions[r, c] = min(max(positions[r, c] - rates[0] * step, -EDGE), last + EDGE)
            unit = first[r, b]
            m, v, step = _adam(scale_moments[r, b], scale_squares[r, b], slope * unit, rates)
            scale_moments[r, b], scale_squares[r, b] = m, v
            scales[r, b] = max(scales[r, b] - rates[1] * unit * step, LEAST * unit)
