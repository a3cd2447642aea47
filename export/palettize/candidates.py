"""A matrix in each form that its recipe allows, with what each form costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from satchel.export.palettize import gptq
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import ROWS_A_GROUP, int8_rows
from satchel.export.palettize.refine import refine_affine, refine_palette
from satchel.export.palettize.spec import Effort, Recipe
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor

SWEEPS: dict[Effort, int] = {"low": 0, "normal": 1, "high": 3}
"""Of coordinate descent after GPTQ."""

SYMMETRIC = "4-symmetric"
"""The form of affine codes that goes without zero points where the recipe has them: smaller, and a little worse."""


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
        form: its name among those of one matrix: the bits of a code, such as "4", or SYMMETRIC.
        matrix: the form itself.
        cost: of this form.
    """

    form: str
    matrix: Matrix
    cost: Cost


def forms_of(name: str, columns: int, recipe: Recipe) -> tuple[str, ...]:
    """The forms that a palette or affine recipe allows the linear `name`, whose rows have so many weights."""
    widths = sorted(set(recipe.widths_of(name)))
    if recipe.weights == "palette":
        return tuple(map(str, widths))
    if columns % recipe.block:
        return ("8",)  # no runtime has a 4-bit kernel for a row that is no multiple of the block
    if recipe.symmetric or len(widths) == 1:
        return tuple(SYMMETRIC if bits == 4 and recipe.lacks_zero_points(name) else str(bits) for bits in widths)
    return ("4", SYMMETRIC, "8")


def candidates(w: np.ndarray, curvature: Curvature, recipe: Recipe, forms: tuple[str, ...]) -> list[Candidate]:
    """Some forms of a linear.

    Args:
        w: its weights, float32 [rows, columns].
        curvature: of the linear.
        recipe: a palette or affine one; what it says of budgets and widths does not matter here.
        forms: as forms_of has them.
    """
    make = (_palettes if recipe.weights == "palette" else _affines)(w, curvature.hessian, recipe)
    found = []
    for form in forms:
        matrix = int8_rows(w) if form == "8" else make(form)
        cost = Cost(curvature.loss(matrix.dequantize() - w), matrix.stored_bytes)
        found.append(Candidate(form, matrix, cost))
    return found


def lut_groups(rows: int, recipe: Recipe) -> int:
    """LUTs of a palettized matrix of so many rows."""
    return rows // ROWS_A_GROUP if recipe.lut_groups == "rows16" and rows % ROWS_A_GROUP == 0 else 1


def _palettes(w: np.ndarray, hessian: np.ndarray, recipe: Recipe) -> Callable[[str], PalettizedTensor]:
    """Form -> palette. What all need of the Hessian is worked out when the first is asked for."""
    groups, sweeps = lut_groups(w.shape[0], recipe), SWEEPS[recipe.effort]
    ordering = cache(lambda: gptq.ordered(hessian))

    def make(form: str) -> PalettizedTensor:
        found = gptq.palette(w, hessian, bits=int(form), groups=groups, rounds=recipe.rounds, ordering=ordering())
        return refine_palette(w, hessian, found, sweeps) if sweeps else found

    return make


def _affines(w: np.ndarray, hessian: np.ndarray, recipe: Recipe) -> Callable[[str], AffineTensor]:
    """Form -> affine codes, as _palettes."""
    sweeps, factor = SWEEPS[recipe.effort], cache(lambda: gptq.inverse_factor(hessian))

    def make(form: str) -> AffineTensor:
        symmetric = recipe.symmetric or form == SYMMETRIC
        found = gptq.affine(
            w, hessian, block=recipe.block, symmetric=symmetric, scale_dtype=recipe.scale_dtype, factor=factor()
        )
        return refine_affine(w, hessian, found, sweeps) if sweeps else found

    return make
