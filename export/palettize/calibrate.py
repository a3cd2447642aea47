"""Activation statistics: the mean square of every linear's input channels, gathered in one place.

By default the text is what the model itself writes when it samples, seeded: no data set is needed, and the statistics
are those of the text that the model will meet in use. They are gathered while it generates, so that generation is the
only pass over the model. `Statistics` is the seam for recipes that need more than the mean square.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from satchel.export.palettize.spec import Calibration
from satchel.export.progress import Progress, silent


class Statistics:
    """Sums over tokens of the squares of each linear's input, by canonical name."""

    def __init__(self) -> None:
        self._squares: dict[str, torch.Tensor] = {}
        self._tokens: dict[str, int] = {}

    def add(self, name: str, x: torch.Tensor) -> None:
        """Adds the input of one call, [..., channels]."""
        rows = x.detach().reshape(-1, x.shape[-1])
        squares = rows.square().sum(0, dtype=torch.float64)
        self._squares[name] = self._squares[name] + squares if name in self._squares else squares
        self._tokens[name] = self._tokens.get(name, 0) + rows.shape[0]

    def mean_square(self) -> dict[str, np.ndarray]:
        """Canonical name -> float32 [channels]."""
        return {n: (s / self._tokens[n]).to(torch.float32).numpy() for n, s in self._squares.items()}


@contextmanager
def observed(linears: Mapping[str, torch.nn.Module], statistics: Statistics) -> Iterator[None]:
    """While it is open, every call of a linear adds its input to the statistics.

    Linears that share an input (q, k, v; gate, up) are each observed: the cost is small beside their products.
    """

    def hook(name: str) -> Any:
        return lambda module, inputs: statistics.add(name, inputs[0])

    handles = [m.register_forward_pre_hook(hook(n)) for n, m in linears.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.inference_mode()
def generate_text(
    model: Any, starts: Sequence[Sequence[int]], calibration: Calibration, *, progress: Progress = silent
) -> torch.Tensor:
    """Samples one sequence from each start, in one batch with a cache.

    Args:
        model: a transformers causal language model.
        starts: token ids, at least one each; repeated in turn until there are `calibration.sequences`.
        calibration: how much to generate; `length` is clipped to what the model was trained for.
        progress: told after each token.

    Returns:
        int64 [sequences, length].
    """
    random = torch.Generator().manual_seed(calibration.seed)
    length = min(calibration.length, int(getattr(model.config, "max_position_embeddings", calibration.length)))
    given = [list(starts[i % len(starts)])[:length] for i in range(calibration.sequences)]
    out = torch.zeros(calibration.sequences, length, dtype=torch.int64)
    forced = torch.zeros_like(out, dtype=torch.bool)
    for row, ids in enumerate(given):
        out[row, : len(ids)] = torch.tensor(ids)
        forced[row, : len(ids)] = True
    cache = None
    for at in range(length - 1):
        step = model(input_ids=out[:, at : at + 1], past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        chances = torch.softmax(step.logits[:, -1].float() / calibration.temperature, -1)
        drawn = torch.multinomial(chances, 1, generator=random)[:, 0]
        out[:, at + 1] = torch.where(forced[:, at + 1], out[:, at + 1], drawn)
        progress("Generating calibration text", at + 1, length - 1)
    return out


def self_calibrate(
    model: Any,
    linears: Mapping[str, torch.nn.Module],
    starts: Sequence[Sequence[int]],
    calibration: Calibration,
    *,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Statistics over text that the model generates; see generate_text and Statistics.mean_square."""
    statistics = Statistics()
    with observed(linears, statistics):
        generate_text(model, starts, calibration, progress=progress)
    return statistics.mean_square()


@torch.inference_mode()
def calibrate_on(
    model: Any,
    linears: Mapping[str, torch.nn.Module],
    ids: Sequence[int],
    *,
    window: int = 256,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Statistics over a given text, in windows of `window` tokens."""
    statistics = Statistics()
    windows = [list(ids[i : i + window]) for i in range(0, len(ids), window)]
    with observed(linears, statistics):
        for count, part in enumerate(windows, 1):
            model(input_ids=torch.tensor([part]), use_cache=False, logits_to_keep=1)
            progress("Reading calibration text", count, len(windows))
    return statistics.mean_square()
