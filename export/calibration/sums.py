"""Sums over tokens of what linears see and of the gradients at their outputs, and the curvature that they make."""

from __future__ import annotations

import torch

from satchel.export.palettize.curvature import Curvature


class Sums:
    """Sums over tokens for each of some linears."""

    def __init__(self) -> None:
        self.hessian: dict[str, torch.Tensor] = {}
        self.squares: dict[str, torch.Tensor] = {}

    def add(self, name: str, x: torch.Tensor, gradient: torch.Tensor) -> None:
        """Adds tokens: input [..., columns] of the linear `name`, and gradient [..., rows] at its output."""
        rows, gradients = x.reshape(-1, x.shape[-1]), gradient.reshape(-1, gradient.shape[-1])
        squares = gradients.square()
        weighted = rows * squares.sum(1).sqrt()[:, None]
        if name not in self.hessian:
            self.hessian[name] = torch.zeros(rows.shape[1], rows.shape[1])
            self.squares[name] = torch.zeros(gradients.shape[1])
        self.hessian[name].addmm_(weighted.T, weighted)
        self.squares[name] += squares.sum(0)

    def result(self, count: int) -> dict[str, Curvature]:
        """Name -> curvature, of the mean over `count` tokens."""
        found = {}
        for name, hessian in self.hessian.items():
            total = self.squares[name].sum()
            share = (
                self.squares[name] / total
                if total > 0
                else torch.full_like(self.squares[name], 1 / len(self.squares[name]))
            )
            found[name] = Curvature((hessian / count).numpy(), share.numpy())
        return found
