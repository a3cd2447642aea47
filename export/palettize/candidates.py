"""A matrix in each form that its recipe allows, with what each form costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satchel.export.palettize import gptq
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import ROWS_A_GROUP, int8_rows
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.tensors import Matrix


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
        bits: of a code.
        matrix: the form itself.
        cost: of this form.
    """

    bits: int
    matrix: Matrix
    cost: Cost


def candidates(name: str, w: np.ndarray, curvature: Curvature, recipe: Recipe) -> list[Candidate]:
    """The forms of the linear `name`, float32 [rows, columns], under a palette or affine recipe."""
    found = []
    for bits in sorted(set(recipe.widths_of(name))):
        matrix = _form(w, curvature, recipe, bits)
        cost = Cost(curvature.loss(matrix.dequantize() - w), matrix.stored_bytes)
        found.append(Candidate(bits, matrix, cost))
    return found


def lut_groups(rows: int, recipe: Recipe) -> int:
    """LUTs of a palettized matrix of so many rows."""
    return rows // ROWS_A_GROUP if recipe.lut_groups == "rows16" and rows % ROWS_A_GROUP == 0 else 1


def _form(w: np.ndarray, curvature: Curvature, recipe: Recipe, bits: int) -> Matrix:
    if bits == 8:
        return int8_rows(w)
    refine = recipe.effort == "high"
    if recipe.weights == "palette":
        groups = lut_groups(w.shape[0], recipe)
        return gptq.palette(w, curvature.hessian, bits=bits, groups=groups, rounds=recipe.rounds)
    if w.shape[1] % recipe.block:
        return int8_rows(w)  # a row that is no multiple of the block has no 4-bit kernel in any runtime
    return gptq.affine(
        w, curvature.hessian, block=recipe.block, symmetric=recipe.symmetric, scale_dtype=recipe.scale_dtype,
        refine=refine,
    )  # fmt: skip
