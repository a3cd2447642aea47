"""How much a model with other weights differs, layer by layer: one layer in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import Weights
from satchel.export.ops.torch import Cache, TorchOps
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import Matrix
from satchel.export.progress import Progress, silent
from satchel.runtime.memory import return_freed_memory
from satchel.runtime.metrics import kl


class Mixed:
    """Weights of a model whose linears are stored forms. Implements `Weights` (export/ops/base.py).

    Args:
        original: all weights.
        store: holds the forms.
        forms: linear -> the form to take.
        rounded: what becomes of another matrix, float32 [rows, columns], by its name.
    """

    def __init__(
        self,
        original: Weights,
        store: WeightStore,
        forms: Mapping[str, str],
        rounded: Callable[[str, np.ndarray], Matrix],
    ) -> None:
        self._original, self._store, self._forms, self._rounded = original, store, forms, rounded

    def matrix(self, name: str) -> Matrix:
        """A form, or the original's rounded; KeyError if there is none."""
        if name in self._forms:
            return self._store.candidate(name, self._forms[name])
        return self._rounded(name, self._original.matrix(name).dequantize())

    def vector(self, name: str) -> np.ndarray:
        """The original's."""
        return self._original.vector(name)

    def has(self, name: str) -> bool:
        """Whether the original has it."""
        return self._original.has(name)


def divergence(
    config: DecoderConfig, original: Weights, other: Weights, ids: np.ndarray, progress: Progress = silent
) -> float:
    """Mean KL divergence of `other` from `original`, in nats a token.

    Args:
        config: shape of the decoder.
        original, other: its weights; each matrix is read once.
        ids: int64 [sequences, length].
        progress: told after each layer of each.
    """
    states = [_final_states(config, weights, ids, progress) for weights in (original, other)]
    with torch.inference_mode():
        found = []
        heads = [TorchOps(config, weights) for weights in (original, other)]
        for row in zip(*states, strict=True):
            logits = [head(ops, config, x[None])[0].numpy() for ops, x in zip(heads, row, strict=True)]
            found.append(kl(*logits))
    return float(np.concatenate(found).mean())


@torch.inference_mode()
def _final_states(config: DecoderConfig, weights: Weights, ids: np.ndarray, progress: Progress) -> torch.Tensor:
    """What the head reads, fp32 [sequences, length, hidden]."""
    tokens = torch.from_numpy(ids)
    x = embed(_begun(config, weights, tokens))
    for layer in range(config.layers):
        x = block(_begun(config, weights, tokens), x, layer)
        return_freed_memory()
        progress("Measuring the loss", layer + 1, config.layers)
    return x


def _begun(config: DecoderConfig, weights: Weights, tokens: torch.Tensor) -> TorchOps:
    """A new op set each time, so that the last layer's weights go."""
    ops = TorchOps(config, weights)
    ops.begin(tokens, 0, Cache())
    return ops
