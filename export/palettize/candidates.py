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
class Candidate:
    """One form of a matrix.

    Attributes:
        bits: of a code.
        matrix: the form itself.
        loss: KL divergence in nats a token that it is expected to cost.
    """

    bits: int
    matrix: Matrix
    loss: float


def candidates(w: np.ndarray, curvature: Curvature, recipe: Recipe) -> list[Candidate]:
    """The forms of one linear, float32 [rows, columns], under a palette or affine recipe."""
    forms: dict[int, Matrix] = {}
    if recipe.weights == "int4":
        forms[4 if w.shape[1] % recipe.block == 0 else 8] = _affine(w, curvature, recipe)
    else:
        groups = w.shape[0] // ROWS_A_GROUP if recipe.lut_groups == "rows16" and w.shape[0] % ROWS_A_GROUP == 0 else 1
        for bits in recipe.choices:
            forms[bits] = (
                int8_rows(w)
                if bits == 8
                else gptq.palette(w, curvature.hessian, bits=bits, groups=groups, rounds=recipe.rounds)
            )
    return [Candidate(bits, form, curvature.loss(form.dequantize() - w)) for bits, form in forms.items()]


def _affine(w: np.ndarray, curvature: Curvature, recipe: Recipe) -> Matrix:
    if w.shape[1] % recipe.block:
        return int8_rows(w)  # a row that is no multiple of the block has no 4-bit kernel in any runtime
    return gptq.affine(
        w, curvature.hessian, block=recipe.block, symmetric=recipe.symmetric, scale_dtype=recipe.scale_dtype
    )
