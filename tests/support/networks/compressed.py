"""Networks whose weights are compressed. Their weights are made so that the compression loses nothing: torch runs the
same values, and is an oracle for the compressed program too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from networks.base import Network, normal


class Mixed(nn.Module):
    """A convolution, a depthwise one, and three layers, wide enough that all are compressed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, groups=32)
        self.one, self.two = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.depthwise(F.relu(self.conv(x)))).mean((2, 3))
        return self.two(F.silu(self.one(y)))


def _with_weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], nn.Module]:
    """Makes the network with every weight replaced."""

    def make() -> nn.Module:
        module = Mixed()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(change(parameter))
        return module

    return make


def few_values(weight: torch.Tensor, bits: int = 4) -> torch.Tensor:
    """Weights out of 2**bits values, all of which fp16 has."""
    values = torch.linspace(-1, 1, 2**bits).half().float()
    return values[torch.randint(0, 2**bits, weight.shape)] * 0.25


def half_zero(weight: torch.Tensor) -> torch.Tensor:
    """Weights out of few values, every second one zero."""
    flat = few_values(weight, 3).flatten()
    flat[::2] = 0
    return flat.reshape(weight.shape)


def on_a_grid(weight: torch.Tensor, levels: int, block: int) -> torch.Tensor:
    """Whole numbers up to +-levels times a power of two for each block of inputs; each block holds +-levels."""
    flat = weight.reshape(weight.shape[0], -1)
    size = block if flat.shape[1] % block == 0 else flat.shape[1]
    codes = torch.randint(-levels, levels + 1, (flat.shape[0], flat.shape[1] // size, size)).float()
    codes[..., 0], codes[..., 1] = levels, -levels
    scale = 2.0 ** torch.randint(-7, -4, codes.shape[:2]).float()
    return (codes * scale[..., None]).reshape(weight.shape)


def _palettize(**options: Any) -> Callable[[Any], Any]:
    def compress(model: Any) -> Any:
        import coremltools.optimize.coreml as cto

        config = cto.OpPalettizerConfig(weight_threshold=128, **options)
        return cto.palettize_weights(model, cto.OptimizationConfig(global_config=config))

    return compress


def _quantize(**options: Any) -> Callable[[Any], Any]:
    def compress(model: Any) -> Any:
        import coremltools.optimize.coreml as cto

        config = cto.OpLinearQuantizerConfig(weight_threshold=128, **options)
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))

    return compress


def _prune(model: Any) -> Any:
    import coremltools.optimize.coreml as cto

    config = cto.OpThresholdPrunerConfig(threshold=1e-6, minimum_sparsity_percentile=0.3, weight_threshold=128)
    return cto.prune_weights(model, cto.OptimizationConfig(global_config=config))


def _prune_and_palettize(model: Any) -> Any:
    import coremltools.optimize.coreml as cto

    config = cto.OpPalettizerConfig(mode="kmeans", nbits=4, weight_threshold=128)
    return cto.palettize_weights(_prune(model), cto.OptimizationConfig(global_config=config), joint_compression=True)


def _prune_and_quantize(model: Any) -> Any:
    import coremltools.optimize.coreml as cto

    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", dtype="int8", weight_threshold=128)
    config = cto.OptimizationConfig(global_config=config)
    return cto.linear_quantize_weights(_prune(model), config, joint_compression=True)


def _calls() -> list[dict[str, np.ndarray]]:
    return [{"x": normal(2, 3, 12, 12)}]


def _int4(weight: torch.Tensor) -> torch.Tensor:
    return on_a_grid(weight, 7, 16)


def _int8(weight: torch.Tensor) -> torch.Tensor:
    return on_a_grid(weight, 127, weight[0].numel())


def _sparse_int8(weight: torch.Tensor) -> torch.Tensor:
    """Every second code zero, but the largest of each channel, which decide its scale, are not."""
    flat = _int8(weight).flatten(1)
    flat[:, 2::2] = 0
    return flat.reshape(weight.shape)


BLOCKS = {"mode": "linear_symmetric", "dtype": "int4", "granularity": "per_block", "block_size": 16}
NETWORKS: dict[str, Network] = {
    "palettized": Network(
        _with_weights(few_values),
        _calls,
        target="iOS18",
        compress=_palettize(mode="unique"),
        ops=("constexpr_lut_to_dense",),
    ),
    "palettized for iOS 16": Network(
        _with_weights(lambda w: few_values(w, 6)),
        _calls,
        target="iOS16",
        compress=_palettize(mode="unique"),
        ops=("constexpr_lut_to_dense",),
    ),
    "palettized in groups": Network(
        _with_weights(lambda w: few_values(w, 2)),
        _calls,
        target="iOS18",
        compress=_palettize(mode="kmeans", nbits=2, granularity="per_grouped_channel", group_size=8),
        ops=("constexpr_lut_to_dense",),
    ),
    "quantized in blocks": Network(
        _with_weights(_int4),
        _calls,
        target="iOS18",
        compress=_quantize(**BLOCKS),
        ops=("constexpr_blockwise_shift_scale",),
    ),
    "quantized for iOS 16": Network(
        _with_weights(_int8),
        _calls,
        target="iOS16",
        compress=_quantize(mode="linear_symmetric", dtype="int8"),
        ops=("constexpr_affine_dequantize",),
    ),
    "pruned": Network(
        _with_weights(half_zero), _calls, target="iOS16", compress=_prune, ops=("constexpr_sparse_to_dense",)
    ),
    "pruned and palettized": Network(
        _with_weights(half_zero),
        _calls,
        target="iOS18",
        compress=_prune_and_palettize,
        ops=("constexpr_lut_to_sparse", "constexpr_sparse_to_dense"),
    ),
    "pruned and quantized": Network(
        _with_weights(_sparse_int8),
        _calls,
        target="iOS18",
        compress=_prune_and_quantize,
        ops=("constexpr_sparse_blockwise_shift_scale", "constexpr_sparse_to_dense"),
    ),
}
