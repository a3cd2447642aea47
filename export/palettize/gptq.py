"""GPTQ: codes chosen column by column, each column's error made up for by those that come after it.

For each row the error d H d' is minimised, d the row's error and H the Hessian of a Curvature. Frantar, Ashkboos,
Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
gives the recurrence: with U the upper Cholesky factor of H's inverse, the error of column c over U[c, c] times
U[c, later] is taken from the later columns. What is lost in the end is the sum over columns of (error / U[c, c])**2,
which is also by how much a LUT should heed each column.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

from satchel.export.palettize.affine import fit_blocks
from satchel.export.palettize.fit import lookup, nearest, palettize, split_exponent
from satchel.export.palettize.spec import ScaleDtype
from satchel.export.palettize.tensors import AffineTensor, PalettizedTensor

DAMPING = 0.01  # of the mean of H's diagonal, as in the paper
BLOCK = 128  # columns between two updates of all that follow
LARGE = 4096  # columns from which on the factor is computed in fp32, to save memory


def inverse_factor(hessian: np.ndarray, damping: float = DAMPING) -> np.ndarray:
    """The upper Cholesky factor of the inverse of a damped Hessian, float32 [n, n].

    Args:
        hessian: float32 [n, n], symmetric and positive semidefinite.
        damping: share of the mean diagonal that is added to the diagonal; ten times as much as often as it needs to
            become positive definite in floating point.
    """
    n = hessian.shape[0]
    h = torch.from_numpy(np.ascontiguousarray(hessian)).flip(0, 1).to(torch.float32 if n > LARGE else torch.float64)
    mean = float(h.diagonal().mean()) or 1.0
    while True:
        h.diagonal().add_(damping * mean)
        lower, failed = torch.linalg.cholesky_ex(h)
        if not failed:
            break
        damping *= 10
    # With J the reversal of order and JHJ = LL', the factor is J inv(L) J.
    eye = torch.eye(n, dtype=h.dtype)
    return torch.linalg.solve_triangular(lower, eye, upper=False).flip(0, 1).float().numpy()


def column_weights(factor: np.ndarray) -> np.ndarray:
    """By how much a squared error in each column counts once later columns have made up for it, float32 [n]."""
    return (1 / np.square(np.diagonal(factor))).astype(np.float32)


Ordering = tuple[np.ndarray, np.ndarray]


def ordered(hessian: np.ndarray, damping: float = DAMPING) -> Ordering:
    """Columns by falling curvature, so that those that matter most are chosen first and nothing is pushed onto them.

    Returns:
        (order int64 [n], inverse_factor of the Hessian in that order).
    """
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    return order, inverse_factor(hessian[np.ix_(order, order)], damping)


def lut_codes(w: np.ndarray, lut: np.ndarray, scale: np.ndarray, order: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Codes of a palette.

    Args:
        w: float32 [rows, columns].
        lut: float32 [entries], ascending.
        scale: float32 [rows].
        order, factor: from `ordered`.

    Returns:
        uint8 [rows, columns].
    """
    work, codes = np.ascontiguousarray(w[:, order]), np.empty(w.shape, np.uint8)
    for start in range(0, w.shape[1], BLOCK):
        block = slice(start, min(start + BLOCK, w.shape[1]))
        errors = np.empty((w.shape[0], block.stop - start), np.float32)
        part = np.ascontiguousarray(work[:, block])
        own = np.ascontiguousarray(factor[block, block])
        codes[:, block] = _lut_block(part, own, lut, scale, errors)
        work[:, block.stop :] -= errors @ factor[block, block.stop :]
    out = np.empty_like(codes)
    out[:, order] = codes
    return out


@njit(cache=True, nogil=True)
def _lut_block(w: np.ndarray, factor: np.ndarray, lut: np.ndarray, scale: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Codes of one block of columns; `errors` gets what is to be taken from the later ones."""
    borders, table = lookup(lut)
    span = borders[-1] - borders[0]
    step = np.float32(table.size - 2) / span if span > 0 else np.float32(0)
    codes = np.empty(w.shape, np.uint8)
    columns = w.shape[1]
    for r in range(w.shape[0]):
        s = scale[r]
        inverse = np.float32(1) / s if s > 0 else np.float32(0)
        for c in range(columns):
            at = nearest(w[r, c] * inverse, borders, table, step)
            codes[r, c] = at
            error = (w[r, c] - lut[at] * s) / factor[c, c]
            errors[r, c] = error
            for k in range(c + 1, columns):
                w[r, k] -= error * factor[c, k]
    return codes


def refit_scales(w: np.ndarray, values: np.ndarray, hessian: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The row scales that are best for given codes, by least squares under the Hessian.

    Args:
        w: float32 [rows, columns].
        values: float32 [rows, columns], LUT entries before the scale.
        hessian: float32 [columns, columns].
        scale: float32 [rows], kept where the best one is not positive.
    """
    curved = values @ hessian
    above, below = (curved * w).sum(1), (curved * values).sum(1)
    good = (above > 0) & (below > 0)
    return np.where(good, above / np.where(good, below, 1), scale).astype(np.float32)


def palette(
    w: np.ndarray, hessian: np.ndarray, *, bits: int = 4, groups: int = 1, rounds: int = 3,
    ordering: Ordering | None = None,
) -> PalettizedTensor:  # fmt: skip
    """A palette fitted by k-means, its codes chosen by GPTQ, its row scales refit.

    Args:
        w: float32 [rows, columns].
        hessian: float32 [columns, columns].
        bits: of a code.
        groups: LUTs, each for rows / groups consecutive rows.
        rounds: of the fit, see fit.palettize.
        ordering: what `ordered` says of the Hessian, where it is known.
    """
    order, factor = ordered(hessian) if ordering is None else ordering
    weights = np.empty(w.shape[1], np.float32)
    weights[order] = column_weights(factor)
    start = palettize(w, weights, bits=bits, groups=groups, rounds=rounds)
    size, scale = w.shape[0] // groups, start.row_scale()
    codes, lut, values = np.empty(w.shape, np.uint8), np.sort(start.lut, axis=1), np.empty(w.shape, np.float32)
    for group in range(groups):
        rows = slice(group * size, (group + 1) * size)
        entries = lut[group].astype(np.float32)
        codes[rows] = lut_codes(w[rows], entries, scale[rows], order, factor)
        values[rows] = entries[codes[rows]]
    parts = [split_exponent(part) for part in np.split(refit_scales(w, values, hessian, scale), groups)]
    exponents, halves = np.array([e for e, _ in parts], np.int8), np.concatenate([h for _, h in parts])
    return PalettizedTensor(codes, lut, exponents, halves, bits)


def affine(
    w: np.ndarray, hessian: np.ndarray, *, block: int = 32, symmetric: bool = False,
    scale_dtype: ScaleDtype = "float16", factor: np.ndarray | None = None,
) -> AffineTensor:  # fmt: skip
    """4-bit affine codes: each block's scale and zero point are searched once the blocks before it are settled.

    Args:
        w: float32 [rows, columns], columns a multiple of `block`.
        hessian: float32 [columns, columns].
        block, symmetric, scale_dtype: as affine.affine has them.
        factor: what `inverse_factor` says of the Hessian, where it is known.
    """
    factor, weights = inverse_factor(hessian) if factor is None else factor, np.diagonal(hessian)
    work, codes = np.array(w, np.float32), np.empty(w.shape, np.uint8)
    scales = np.empty((w.shape[0], w.shape[1] // block), np.float32)
    zeros = np.empty(scales.shape, np.uint8)
    for b in range(scales.shape[1]):
        at = slice(b * block, (b + 1) * block)
        part = np.ascontiguousarray(work[:, at])
        fitted = fit_blocks(part, weights[at], block=block, symmetric=symmetric, scale_dtype=scale_dtype)
        scales[:, b], zeros[:, b] = fitted[0][:, 0], fitted[1][:, 0]
        errors = np.empty(part.shape, np.float32)
        own = np.ascontiguousarray(factor[at, at])
        codes[:, at] = _affine_block(part, own, scales[:, b].copy(), zeros[:, b].copy(), errors)
        work[:, at.stop :] -= errors @ factor[at, at.stop :]
    return AffineTensor(codes, scales, zeros, block, scale_dtype)


@njit(cache=True, nogil=True)
def _affine_block(
    w: np.ndarray, factor: np.ndarray, scale: np.ndarray, zero: np.ndarray, errors: np.ndarray
) -> np.ndarray:
    """Codes of one block of columns, as _lut_block."""
    codes = np.empty(w.shape, np.uint8)
    columns = w.shape[1]
    for r in range(w.shape[0]):
        s, z = scale[r], np.float32(zero[r])
        inverse = np.float32(1) / s
        for c in range(columns):
            q = min(np.float32(15), max(np.float32(0), np.floor(w[r, c] * inverse + z + np.float32(0.5))))
            codes[r, c] = np.uint8(q)
            error = (w[r, c] - (q - z) * s) / factor[c, c]
            errors[r, c] = error
            for k in range(c + 1, columns):
                w[r, k] -= error * factor[c, k]
    return codes
