"""A matrix in each form that its recipe allows, with what each form costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from satchel.export.palettize import gptq
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import ROWS_A_GROUP, int8_rows
from satchel.export.palettize.refine import refine_affine, refine_palette
from satchel.export.palettize.spec import Effort, Recipe
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor

SWEEPS: dict[Effort, int] = {"low": 0, "normal": 0, "high": 3}
"""Of coordinate descent after GPTQ."""


@dataclass(frozen=True)
class Cost:
    """What one form of a matrix costs.

    Attributes:
        loss: KL divergence in nats a token, to second order.
        bytes: of the matrix, scales and LUTs counted.
    """

    loss: float
    bytes: int


@dataclass(frozen=True)
class Candidate:
    """One form of a matrix.

    Attributes:
        form: its name among those of one matrix: the bits of a code, such as "4", or "4-symmetric".
        matrix: the form itself.
        cost: of this form.
    """

    form: str
    matrix: Matrix
    cost: Cost


def candidates(name: str, w: np.ndarray, curvature: Curvature, recipe: Recipe) -> list[Candidate]:
    """The forms of the linear `name`, float32 [rows, columns], under a palette or affine recipe."""
    found = []
    for form, matrix in _forms(w, curvature, recipe, recipe.widths_of(name)):
        cost = Cost(curvature.loss(matrix.dequantize() - w), matrix.stored_bytes)
        found.append(Candidate(form, matrix, cost))
    return found


def lut_groups(rows: int, recipe: Recipe) -> int:
    """LUTs of a palettized matrix of so many rows."""
    return rows // ROWS_A_GROUP if recipe.lut_groups == "rows16" and rows % ROWS_A_GROUP == 0 else 1


def _forms(
    w: np.ndarray, curvature: Curvature, recipe: Recipe, widths: tuple[int, ...]
) -> Iterator[tuple[str, Matrix]]:
    for bits in sorted(set(widths)):
        if bits == 8 or (recipe.weights == "int4" and w.shape[1] % recipe.block):
            yield "8", int8_rows(w)  # a row that is no multiple of the block has no 4-bit kernel in any runtime
        elif recipe.weights == "palette":
            yield str(bits), _palette(w, curvature.hessian, recipe, bits)
        else:
            yield from _affine(w, curvature.hessian, recipe, several=len(widths) > 1)


def _palette(w: np.ndarray, hessian: np.ndarray, recipe: Recipe, bits: int) -> PalettizedTensor:
    groups = lut_groups(w.shape[0], recipe)
    found = gptq.palette(w, hessian, bits=bits, groups=groups, rounds=recipe.rounds)
    return refine_palette(w, hessian, found, SWEEPS[recipe.effort]) if SWEEPS[recipe.effort] else found


def _affine(w: np.ndarray, hessian: np.ndarray, recipe: Recipe, *, several: bool) -> Iterator[tuple[str, AffineTensor]]:
    """Codes with zero points, and, where there is a choice, the smaller form without them."""
    for symmetric in (recipe.symmetric,) if recipe.symmetric or not several else (False, True):
        form, dtype = "4" if symmetric == recipe.symmetric else "4-symmetric", recipe.scale_dtype
        found = gptq.affine(w, hessian, block=recipe.block, symmetric=symmetric, scale_dtype=dtype)
        yield form, refine_affine(w, hessian, found, SWEEPS[recipe.effort]) if SWEEPS[recipe.effort] else found
