"""What an error in a matrix costs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Curvature:
    """The Fisher information of one linear, as export/calibration/fisher.py measures it.

    Attributes:
        hessian: float32 [columns, columns], E[|g|^2 x x'] over tokens, x the input and g the gradient at the output.
        share: float32 [rows], E[g[r]^2] / E[|g|^2]; sums to one.
    """

    hessian: np.ndarray
    share: np.ndarray

    def loss(self, error: np.ndarray) -> float:
        """KL divergence in nats a token that an error, float32 [rows, columns], costs, to second order."""
        each = np.einsum("rc,rc->r", error @ self.hessian, error)
        return 0.5 * float(each.astype(np.float64) @ self.share)
