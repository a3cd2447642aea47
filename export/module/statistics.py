"""What the inputs of each weight look like, over examples: how much an error in each column of its matrix counts.

A matrix W [rows, columns] is multiplied with vectors x [columns]: of a convolution these are patches of the picture.
Its curvature is E[x x'], and the mean squares of its columns are the diagonal of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter, Node

from satchel.export.module.program import Inputs, Program
from satchel.export.module.weights import Use, Weight

MOST_ROWS = 8192
"""Vectors of one call that are looked at, spread over all."""
WIDEST = 8192
"""Columns beyond which a weight's curvature is not measured, only its mean squares."""
AT_ONCE = 1 << 29
"""Bytes of curvatures that are gathered in one pass over the examples."""

Heard = Callable[[Weight, torch.Tensor], None]


def mean_squares(program: Program, weights: Sequence[Weight], examples: Sequence[Inputs]) -> dict[str, np.ndarray]:
    """Name -> float32 [columns], the mean square of each; an embedding has none, since its rows are not multiplied."""
    totals: dict[str, tuple[torch.Tensor, int]] = {}

    def heard(weight: Weight, rows: torch.Tensor) -> None:
        total, count = totals.get(weight.name, (torch.zeros(rows.shape[1], dtype=torch.float64), 0))
        totals[weight.name] = (total + rows.double().square().sum(0), count + len(rows))

    _listen(program, weights, examples, heard)
    return {name: (total / max(count, 1)).float().numpy() for name, (total, count) in totals.items()}


def curvatures(
    program: Program, weights: Sequence[Weight], examples: Sequence[Inputs]
) -> Iterator[tuple[Weight, np.ndarray | None]]:
    """Each weight with its curvature, float32 [columns, columns]; None where it has none that is worth measuring.

    Weights are taken some at a time, so that their curvatures fit the memory; each time the examples are run again.
    """
    measured = [weight for weight in weights if _is_measured(weight)]
    yield from ((weight, None) for weight in weights if not _is_measured(weight))
    while measured:
        some = _first(measured)
        measured = measured[len(some) :]
        totals = {weight.name: torch.zeros((weight.matrix_shape[1],) * 2) for weight in some}
        counts = dict.fromkeys(totals, 0)

        def heard(
            weight: Weight, rows: torch.Tensor, totals: dict[str, torch.Tensor] = totals,
            counts: dict[str, int] = counts,
        ) -> None:  # fmt: skip
            totals[weight.name].addmm_(rows.T, rows)
            counts[weight.name] += len(rows)

        _listen(program, some, examples, heard)
        for weight in some:
            yield weight, (totals.pop(weight.name) / max(counts[weight.name], 1)).numpy()


def _is_measured(weight: Weight) -> bool:
    plain = all(use.kind in ("linear", "product", "convolution") and use.groups == 1 for use in weight.uses)
    return plain and len(weight.shape) <= 4 and weight.matrix_shape[1] <= WIDEST


def _first(weights: Sequence[Weight]) -> list[Weight]:
    found: list[Weight] = []
    size = 0
    for weight in weights:
        size += 4 * weight.matrix_shape[1] ** 2
        if found and size > AT_ONCE:
            break
        found.append(weight)
    return found


def _listen(program: Program, weights: Sequence[Weight], examples: Sequence[Inputs], heard: Heard) -> None:
    listener = _Listener(program, weights, heard)
    for inputs in examples:
        with torch.no_grad():
            listener.run(*(inputs[name] for name in program.inputs))


class _Listener(Interpreter):
    """Runs a graph, and tells of the vectors that each weight is multiplied with."""

    def __init__(self, program: Program, weights: Sequence[Weight], heard: Heard) -> None:
        super().__init__(program.graph)
        self._heard = heard
        self._uses = {use.node: (weight, use) for weight in weights for use in weight.uses if use.kind != "embedding"}

    def run_node(self, n: Node) -> Any:
        """Evaluates a node; before that, tells of its input."""
        if n in self._uses:
            weight, use = self._uses[n]
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            self._heard(weight, vectors(weight, use, arguments[1] if n.target in _SECOND else arguments[0]))
        return super().run_node(n)


_SECOND = (torch.ops.aten.addmm.default,)


def vectors(weight: Weight, use: Use, x: torch.Tensor) -> torch.Tensor:
    """The input of an op as vectors [n, columns], at most MOST_ROWS of them."""
    x = x.detach().float()
    if use.kind in ("linear", "product"):
        rows = x.reshape(-1, x.shape[-1])
    else:
        rows = _patches(weight, use, x if x.dim() == len(weight.shape) else x[None])
    return rows[:: -(-len(rows) // MOST_ROWS)] if len(rows) else rows


def _patches(weight: Weight, use: Use, x: torch.Tensor) -> torch.Tensor:
    """Of a convolution: what a kernel covers, [n, columns]; without padding, and with every step."""
    kernel = weight.shape[2:]
    fits = all(size >= k for size, k in zip(x.shape[2:], kernel, strict=True))
    if use.kind == "convolution" and use.groups == 1 and len(kernel) <= 2 and fits:
        flat = x[:, :, None] if len(kernel) == 1 else x
        size = (1, *kernel) if len(kernel) == 1 else kernel
        stride = max(1, int((flat.shape[2] * flat.shape[3] / MOST_ROWS) ** 0.5))
        return torch.nn.functional.unfold(flat, size, stride=stride).transpose(1, 2).reshape(-1, weight.matrix_shape[1])
    # Channels by themselves: the places of a kernel, and groups, share what is known of them.
    count = int(np.prod(kernel))
    channels = weight.matrix_shape[1] // count
    points = x.flatten(2).transpose(1, 2).reshape(-1, channels)
    return points[:: -(-len(points) // MOST_ROWS)].repeat_interleave(count, 1)
