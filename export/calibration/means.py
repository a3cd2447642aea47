"""The mean square of every linear's input channels, layer by layer: one layer in memory."""

from __future__ import annotations

import numpy as np
import torch

from satchel.export.decoder import block, embed
from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import Weights
from satchel.export.ops.torch import Cache, TorchOps
from satchel.export.progress import Progress, silent
from satchel.runtime.memory import return_freed_memory


class _Squares:
    """Sums over tokens, for each linear, of the squares of its input channels."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, x: torch.Tensor) -> None:
        squares = x.reshape(-1, x.shape[-1]).square().sum(0, dtype=torch.float64)
        self._sums[name] = self._sums[name] + squares if name in self._sums else squares

    def means(self, tokens: int) -> dict[str, np.ndarray]:
        return {name: (total / tokens).to(torch.float32).numpy() for name, total in self._sums.items()}


@torch.inference_mode()
def mean_squares(
    config: DecoderConfig, weights: Weights, ids: np.ndarray, progress: Progress = silent
) -> dict[str, np.ndarray]:
    """Mean square of each input channel of the layers' linears.

    Args:
        config: shape of the decoder.
        weights: uncompressed; each matrix is read once.
        ids: int64 [sequences, length], the calibration text.
        progress: told after each layer.

    Returns:
        Canonical name -> float32 [columns].
    """
    squares, tokens = _Squares(), torch.from_numpy(ids)
    x: torch.Tensor | None = None
    for layer in range(-1, config.layers):
        ops = TorchOps(config, weights, on_linear=squares.add, keep=False)  # each matrix is used once
        ops.begin(tokens, 0, Cache())
        x = embed(ops) if x is None else block(ops, x, layer)
        return_freed_memory()  # else the heap grows with every layer, by holes that nothing fits into
        progress("Reading calibration text", layer + 1, config.layers)
    return squares.means(tokens.numel())
