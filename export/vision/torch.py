"""The vision encoder in eager torch, fp32: what calibration listens to, and what other op sets are held against."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from satchel.export.ops.base import Weights
from satchel.export.ops.torch import OnLinear, TorchOps
from satchel.export.vision.config import Activation, VisionConfig
from satchel.export.vision.encoder import encoder


class TorchVisionOps(TorchOps):
    """A VisionOps (encoder.py). Values are fp32 [pictures, rows, channels].

    Args:
        config, weights, on_linear: as TorchOps has them.
        pixels: fp32 [pictures, channels, image_size, image_size].
    """

    def __init__(
        self, config: VisionConfig, weights: Weights, pixels: torch.Tensor, *, on_linear: OnLinear | None = None
    ) -> None:
        super().__init__(config, weights, on_linear=on_linear, keep=False)  # type: ignore[arg-type]
        self._vision, self._pixels = config, pixels

    def patches(self, name: str) -> torch.Tensor:  # noqa: D102
        grid, edge = self._vision.grid, self._vision.patch_size
        pixels = self._pixels[:, :, : grid * edge, : grid * edge]
        cut = pixels.unflatten(3, (grid, edge)).unflatten(2, (grid, edge))
        return self._linear(cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), name, name)

    def placed(self, x: torch.Tensor, name: str, first: str | None) -> torch.Tensor:  # noqa: D102
        if first is not None:
            x = torch.cat([self._vector(first).expand(len(x), 1, -1), x], 1)
        return x + self._vector(name).unflatten(0, (-1, x.shape[-1]))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, name: str) -> torch.Tensor:  # noqa: D102
        queries, keys, values = (self._heads(x) for x in (q, k, v))
        return F.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)

    def activate(self, x: torch.Tensor, kind: Activation, name: str) -> torch.Tensor:  # noqa: D102
        if kind == "quick_gelu":
            return x * torch.sigmoid(1.702 * x)
        return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")

    def without_first(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return x[:, 1:]

    def shuffled(self, x: torch.Tensor, factor: int) -> torch.Tensor:  # noqa: D102
        side = self._vision.grid // factor
        squares = x.unflatten(1, (side, factor, side, factor)).transpose(2, 3)
        return squares.flatten(3).flatten(1, 2)


@torch.inference_mode()
def features(
    config: VisionConfig, weights: Weights, pixels: np.ndarray, *, on_linear: OnLinear | None = None
) -> np.ndarray:
    """float32 [pictures, 3, height, width] -> float32 [pictures, rows, decoder's width]."""
    ops = TorchVisionOps(config, weights, torch.from_numpy(pixels), on_linear=on_linear)
    return np.asarray(encoder(ops, config).numpy())
