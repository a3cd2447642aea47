"""The mean square of each input channel of each weight, over example inputs: how much an error there counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Interpreter, Node

from satchel.export.module.program import Inputs, Program
from satchel.export.module.weights import Use, Weight


def mean_squares(program: Program, weights: Sequence[Weight], examples: Iterable[Inputs]) -> dict[str, np.ndarray]:
    """Runs the program.

    Args:
        program: in fp32.
        weights: of it.
        examples: inputs.

    Returns:
        name -> float32 [columns]; an embedding has none, since its rows are read, not multiplied.
    """
    listener = _Listener(program, weights)
    for inputs in examples:
        with torch.no_grad():
            listener.run(*(inputs[name] for name in program.inputs))
    return {name: (total / max(count, 1)).astype(np.float32) for name, (total, count) in listener.found.items()}


class _Listener(Interpreter):
    """Runs a graph and adds up the squares of what each weight is multiplied with."""

    def __init__(self, program: Program, weights: Sequence[Weight]) -> None:
        super().__init__(program.graph)
        self.found: dict[str, tuple[np.ndarray, int]] = {}
        self._uses = {use.node: (weight, use) for weight in weights for use in weight.uses if use.kind != "embedding"}

    def run_node(self, n: Node) -> Any:
        """Evaluates a node; before that, notes its input."""
        if n in self._uses:
            weight, use = self._uses[n]
            arguments, _ = self.fetch_args_kwargs_from_env(n)
            squares, count = _squares(weight, use, arguments[1] if n.target in _SECOND else arguments[0])
            total, seen = self.found.get(weight.name, (np.zeros_like(squares), 0))
            self.found[weight.name] = (total + squares, seen + count)
        return super().run_node(n)


_SECOND = (torch.ops.aten.addmm.default,)


def _squares(weight: Weight, use: Use, x: torch.Tensor) -> tuple[np.ndarray, int]:
    """(sum of squares for each column of the matrix, how many vectors there were)."""
    x = x.detach().double()
    if use.kind in ("linear", "product"):
        flat = x.reshape(-1, x.shape[-1])
        return flat.square().sum(0).numpy(), flat.shape[0]
    dims = len(weight.shape) - 2
    if x.dim() == dims + 1:
        x = x[None]
    channels = x.square().sum(dim=[0, *range(2, x.dim())]).numpy()
    count = x.numel() // x.shape[1]
    kernel = int(np.prod(weight.shape[2:]))
    columns = weight.matrix_shape[1] // kernel  # input channels that one output channel sees
    grouped = channels.reshape(-1, columns).mean(0)  # groups share the columns' weights
    return np.repeat(grouped, kernel), count
