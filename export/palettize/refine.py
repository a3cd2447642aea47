"""Coordinate descent on codes that GPTQ chose: each weight once more, given all others, and scales refit in between.

What is minimised is the same as in gptq.py, tr(D H D') with D the error, but every code sees what all others became,
where GPTQ's only saw those before it. With G = D H, moving one value by e changes the loss of its row by
e**2 H[c, c] - 2 e G[c]; only moves that lower it are made, so that no sweep makes anything worse.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from satchel.export.palettize.affine import round_scale
from satchel.export.palettize.fit import split_exponent
from satchel.export.palettize.tensors import AffineTensor, PalettizedTensor

BLOCK = 128  # columns between two updates of all others


@njit(cache=True, nogil=True)
def _descend(
    values: np.ndarray, gradient: np.ndarray, hessian: np.ndarray, codes: np.ndarray, levels: np.ndarray,
    zeros: np.ndarray, scales: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """One pass over a block of columns, in place; returns by how much values changed.

    A value is (levels[code] - zeros[row]) * scales[row], with ascending levels.
    """
    moved = np.zeros(values.shape, np.float32)
    columns, last = values.shape[1], levels.size - 1
    for r in range(values.shape[0]):
        s, z = scales[r], zeros[r]
        for c in range(columns):
            wanted = (values[r, c] + gradient[r, c] / hessian[c, c]) / s + z
            k = int(codes[r, c])
            while k < last and abs(levels[k + 1] - wanted) < abs(levels[k] - wanted):
                k += 1
            while k > 0 and abs(levels[k - 1] - wanted) < abs(levels[k] - wanted):
                k -= 1
            if k == codes[r, c]:
                continue
            step = (levels[k] - z) * s - values[r, c]
            if step * step * hessian[c, c] < 2 * step * gradient[r, c]:
                values[r, c] += step
                moved[r, c] += step
                codes[r, c] = k
                for i in range(columns):
                    gradient[r, i] -= step * hessian[c, i]
    return moved


class _Problem:
    """Values near `w`, and the gradient of the loss at them."""

    def __init__(self, w: np.ndarray, hessian: np.ndarray, values: np.ndarray) -> None:
        diagonal = np.diagonal(hessian)
        self.hessian = hessian + np.diag(np.where(diagonal > 0, 0, 1).astype(np.float32))
        self.values = values
        self.gradient = (w - values) @ self.hessian

    def move(self, at: slice, moved: np.ndarray) -> None:
        """Takes a change of the values of some columns into account."""
        self.values[:, at] += moved
        self.gradient -= moved @ self.hessian[at]

    def descend(self, at: slice, codes: np.ndarray, levels: np.ndarray, zeros: np.ndarray, scales: np.ndarray) -> None:
        """A pass over the codes of some columns, in place."""
        part = np.ascontiguousarray(codes[:, at])
        own = np.ascontiguousarray(self.hessian[at, at])
        values, gradient = (np.ascontiguousarray(x[:, at]) for x in (self.values, self.gradient))
        moved = _descend(values, gradient, own, part, levels, zeros, scales)
        codes[:, at] = part
        self.move(at, moved)

    def rescale(self, at: slice, unit: np.ndarray) -> np.ndarray:
        """By how much the scales of some columns, whose values are unit * scales, should change; float32 [rows]."""
        slope = (self.gradient[:, at] * unit).sum(1)
        curve = ((unit @ self.hessian[at, at]) * unit).sum(1)
        return np.where(curve > 0, slope / np.where(curve > 0, curve, 1), 0).astype(np.float32)


def refine_affine(w: np.ndarray, hessian: np.ndarray, start: AffineTensor, sweeps: int) -> AffineTensor:
    """Codes and block scales that lose less; zero points stay.

    Args:
        w: float32 [rows, columns].
        hessian: float32 [columns, columns].
        start: what GPTQ found.
        sweeps: over all columns.
    """
    codes, scales = start.code.copy(), start.scale.copy()
    zeros, levels = start.zero_point.astype(np.float32), np.arange(2**start.bits, dtype=np.float32)
    problem = _Problem(w, hessian, start.dequantize())
    for _ in range(sweeps):
        for b in range(scales.shape[1]):
            at, scale, zero = slice(b * start.block, (b + 1) * start.block), scales[:, b], zeros[:, b].copy()
            unit = codes[:, at] - zero[:, None]
            better = scale + problem.rescale(at, unit)
            better = round_scale(np.where(better > 0, better, scale), start.scale_dtype)
            problem.move(at, (better - scale)[:, None] * unit)
            scales[:, b] = better
            problem.descend(at, codes, levels, zero, better)
    return AffineTensor(codes, scales, start.zero_point, start.block, start.scale_dtype, start.bits)


def refine_palette(w: np.ndarray, hessian: np.ndarray, start: PalettizedTensor, sweeps: int) -> PalettizedTensor:
    """Codes and row scales that lose less; LUTs stay. Arguments as refine_affine has them."""
    codes, size = start.index.copy(), w.shape[0] // start.groups
    exponents, halves = [], []
    for group in range(start.groups):
        rows = slice(group * size, (group + 1) * size)
        scale = _refine_rows(w[rows], hessian, codes[rows], start.lut[group], start.row_scale()[rows], sweeps)
        exponent, half = split_exponent(scale)
        exponents.append(exponent)
        halves.append(half)
    return PalettizedTensor(codes, start.lut, np.array(exponents, np.int8), np.concatenate(halves), start.bits)


def _refine_rows(
    w: np.ndarray, hessian: np.ndarray, codes: np.ndarray, lut: np.ndarray, scale: np.ndarray, sweeps: int
) -> np.ndarray:
    """The rows of one LUT: codes in place, and their scales."""
    levels, zeros, whole = lut.astype(np.float32), np.zeros(w.shape[0], np.float32), slice(0, w.shape[1])
    problem = _Problem(w, hessian, levels[codes] * scale[:, None])
    for sweep in range(sweeps + 1):  # the last time scales alone
        unit = levels[codes]
        better = scale + problem.rescale(whole, unit)
        better = np.where(better > 0, better, scale)
        problem.move(whole, (better - scale)[:, None] * unit)
        scale = better
        for start in range(0, w.shape[1] if sweep < sweeps else 0, BLOCK):
            problem.descend(slice(start, min(start + BLOCK, w.shape[1])), codes, levels, zeros, scale)
    return scale
