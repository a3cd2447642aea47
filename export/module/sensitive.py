"""Which weights lose most by their palette, as the module's outputs show it; those keep 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
import torch

from satchel.export.module.program import Inputs, Program, assign
from satchel.export.module.weights import Weight
from satchel.export.palettize.store import WeightStore

SHARE = 1 / 8
"""Of the numbers in palettes: as many at most keep 8 bits for their sensitivity, half a bit a weight on average."""
TIMES = 1.5
"""A weight is sensitive if it loses so many times what the median weight loses, for each number that it has."""
MEASURED = 4
"""Inputs, spread over all, that losses are measured on."""


def losses(
    program: Program, weights: Sequence[Weight], store: WeightStore, examples: Sequence[Inputs]
) -> dict[str, float]:
    """Name -> mean squared error of the outputs, over their mean square, with this weight's palette alone."""
    chosen = (
        [examples[i * len(examples) // MEASURED] for i in range(MEASURED)] if len(examples) > MEASURED else examples
    )
    trial = program.copy()
    wanted = [program(inputs) for inputs in chosen]
    found = {}
    for weight in weights:
        own = program.value(weight.name)
        values = weight.parameter(store.matrix(weight.name).dequantize())
        assign(trial.graph, weight.name, torch.from_numpy(np.ascontiguousarray(values)))
        errors = [_error(one, trial(inputs)) for one, inputs in zip(wanted, chosen, strict=True)]
        found[weight.name] = sum(errors) / len(errors)
        assign(trial.graph, weight.name, own)
    return found


def _error(wanted: Mapping[str, torch.Tensor], got: Mapping[str, torch.Tensor]) -> float:
    """The mean over outputs; those of whole numbers say nothing."""
    found = []
    for name, value in wanted.items():
        if value.is_floating_point() and bool(value.isfinite().all()):
            error = (got[name].double() - value.double()).square().mean()
            found.append(float(error / value.double().square().mean().clamp_min(1e-30)))
    return sum(found) / len(found) if found else 0.0


def sensitive(weights: Sequence[Weight], loss: Mapping[str, float]) -> list[Weight]:
    """Those that are to keep 8 bits, the most sensitive for their size first."""
    if not weights:
        return []
    rate = {weight.name: loss[weight.name] / weight.size for weight in weights}
    usual, left = median(rate.values()), SHARE * sum(weight.size for weight in weights)
    found = []
    for weight in sorted(weights, key=lambda w: (-rate[w.name], w.name)):
        if rate[weight.name] > TIMES * usual and weight.size <= left:
            found.append(weight)
            left -= weight.size
    return found
