"""The op set over torch tensors, keeping what each op gives under a name, so that a lowering can be held against it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import Weights
from satchel.export.ops.torch import Cache, TorchOps

EMBEDDED, LOGITS = "embed_tokens", "lm_head"


class RecordingOps(TorchOps):
    """A `TorchOps` that keeps its results until they are taken.

    Their names are canonical: a norm's, a linear's, "embed_tokens", "lm_head"; and `layers.{i}.self_attn` (heads
    joined), `layers.{i}.mlp` (what down_proj is given), and for the residual sums `layers.{i}.after_attention`,
    `layers.{i}.after_mlp`; of parallel branches, `layers.{i}.branches` is their sum.
    """

    def __init__(self, config: DecoderConfig, weights: Weights) -> None:
        super().__init__(config, weights, keep=False)
        self._kept_results: list[tuple[str, torch.Tensor]] = []
        self._layer = 0
        self._sums = 0

    def taken(self) -> Iterator[tuple[str, np.ndarray]]:
        """What was recorded since the last time: name -> float32 [1, sequence, channels]."""
        results, self._kept_results = self._kept_results, []
        for name, value in results:
            yield name, np.asarray(value.numpy(), np.float32)

    def _keep_as(self, name: str, value: torch.Tensor) -> torch.Tensor:
        self._kept_results.append((name, value))
        return value

    def embed(self, name: str) -> torch.Tensor:
        """As in TorchOps, recorded."""
        return self._keep_as(EMBEDDED, super().embed(name))

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """As in TorchOps, recorded."""
        return self._keep_as(name, super().norm(x, name))

    def head_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """As in TorchOps, recorded."""
        return self._keep_as(name, super().head_norm(x, name))

    def linears(self, x: torch.Tensor, names: list[str]) -> list[torch.Tensor]:
        """As in TorchOps, recorded."""
        found = super().linears(x, names)
        return [self._keep_as(name, value) for name, value in zip(names, found, strict=True)]

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int) -> torch.Tensor:
        """As in TorchOps, recorded."""
        self._layer, self._sums = layer, 0
        return self._keep_as(f"layers.{layer}.self_attn", super().attention(q, k, v, layer))

    def gated(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """As in TorchOps, recorded."""
        return self._keep_as(f"layers.{self._layer}.mlp", super().gated(gate, up))

    def activated(self, x: torch.Tensor) -> torch.Tensor:
        """As in TorchOps, recorded unless it is a gate's."""
        active = super().activated(x)
        return active if self.config.gated else self._keep_as(f"layers.{self._layer}.mlp", active)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """As in TorchOps, recorded: a layer has two sums."""
        self._sums += 1
        first = "branches" if self.config.parallel else "after_attention"
        place = first if self._sums == 1 else "after_mlp"
        return self._keep_as(f"layers.{self._layer}.{place}", super().add(x, y))

    def lm_head(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """As in TorchOps, recorded."""
        return self._keep_as(LOGITS, super().lm_head(x, name))


def recorded(config: DecoderConfig, weights: Weights, ids: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Runs the decoder on ids, int [1, sequence], from position 0; holds the results of one layer at a time."""
    ops = RecordingOps(config, weights)
    with torch.no_grad():
        ops.begin(torch.from_numpy(ids.astype(np.int64)), 0, Cache())
        x = embed(ops)
        for layer in range(config.layers):
            x = block(ops, x, layer)
            yield from ops.taken()
        head(ops, config, x)
        yield from ops.taken()
