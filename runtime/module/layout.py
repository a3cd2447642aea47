"""How a weight of a module lies in a file, and as a matrix whose rows are output channels.

rows            [rows, ...]: a matrix once what follows is one axis
columns         [columns, rows]
transposed      [columns' channels, rows / groups, kernel ...], as transposed convolutions have it
"""

from __future__ import annotations

import math

import numpy as np


def row_count(shape: tuple[int, ...], form: str, groups: int) -> int:
    """Rows of the matrix."""
    return {"rows": shape[0], "columns": shape[-1], "transposed": shape[1] * groups}[form]


def to_matrix(values: np.ndarray, form: str, groups: int = 1) -> np.ndarray:
    """An array as it lies -> [rows, columns]; KeyError for a form that there is not."""
    rows = row_count(values.shape, form, groups)
    if form == "columns":
        return np.ascontiguousarray(values.reshape(-1, rows).T)
    if form == "transposed":
        values = values.reshape(groups, values.shape[0] // groups, values.shape[1], -1).swapaxes(1, 2)
    return np.ascontiguousarray(values).reshape(rows, -1)


def from_matrix(matrix: np.ndarray, shape: tuple[int, ...], form: str, groups: int = 1) -> np.ndarray:
    """The inverse: [rows, columns] -> an array of `shape`."""
    if form == "columns":
        return np.ascontiguousarray(matrix.T).reshape(shape)
    if form == "transposed":
        each = matrix.reshape(groups, shape[1], shape[0] // groups, math.prod(shape[2:]))
        return np.ascontiguousarray(each.swapaxes(1, 2)).reshape(shape)
    return matrix.reshape(shape)
