"""Random numbers for a model's parameters, at a trained model's scale.

Every tensor has a seed of its own, made from its name. Products keep the size of their inputs, what is added to a
residual stream is smaller by the square root of twice the number of layers, rows of a matrix differ in size, logits are
spread by about 3. Batch norms have the statistics that their inputs have over drawn pictures.
"""

from __future__ import annotations

import math
import zlib
from typing import Any

import torch

INTO_RESIDUAL = (
    "output.dense", "o_proj", "out_proj", "down_proj", "fc2", "Wo", "out_lin", "lin2", "dense2",
)  # fmt: skip
"""Ends of names, without the ".weight", of what is added to a residual stream."""
HEADS = ("classifier", "lm_head", "predictions.decoder", "vocab_projector")
LOGITS = 3.0
"""Their standard deviation, roughly."""


def made(name: str, shape: tuple[int, ...], layers: int) -> torch.Tensor:
    """A parameter's values, fp32."""
    random = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values, stem = torch.empty(shape), name.rpartition(".")[0]
    if len(shape) < 2 or name.endswith("original0"):  # biases, gains, and magnitudes of a weight norm
        bias = name.endswith("bias")
        return values.normal_(0, 0.1, generator=random) if bias else values.uniform_(0.5, 1.5, generator=random)
    scale = math.prod(shape[1:]) ** -0.5 if len(shape) != 3 or shape[0] > 1 else shape[-1] ** -0.5
    scale *= 2**0.5 if len(shape) == 4 else 1  # half of what a convolution gives is cut off behind it
    scale *= (2 * layers) ** -0.5 if stem.endswith(INTO_RESIDUAL) else 1
    scale *= LOGITS if stem.endswith(HEADS) else 1
    rows = torch.empty(shape[0], *[1] * (len(shape) - 1)).log_normal_(0, 0.3, generator=random)
    return values.normal_(0, scale, generator=random).mul_(rows)


def fill(model: torch.nn.Module, layers: int) -> torch.nn.Module:
    """Random numbers for all parameters; of frozen batch norms, whose gains are buffers, for these too."""
    own = dict(model.named_parameters())
    frozen = {n: b for n, b in model.named_buffers() if n.endswith(("normalization.weight", "normalization.bias"))}
    with torch.no_grad():
        for name, value in (own | frozen).items():
            value.copy_(made(name, tuple(value.shape), layers))
    return model.eval()


def drawn(edge: int, count: int = 4) -> torch.Tensor:
    """Smooth pictures with a little noise, normalised: float32 [count, 3, edge, edge]."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, 12, 12, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, size=(edge, edge), mode="bicubic")
    return smooth + 0.1 * torch.randn(count, 3, edge, edge, generator=random)


def settle_norms(model: torch.nn.Module, pixels: torch.Tensor) -> None:
    """Gives batch norms the statistics of what comes to them, one after the other."""

    def settle(norm: Any, given: tuple[torch.Tensor, ...]) -> None:
        x = given[0].detach().transpose(0, 1).flatten(1)
        norm.running_mean.copy_(x.mean(1))
        norm.running_var.copy_(x.var(1).clamp_min(1e-3))

    norms = [m for m in model.modules() if isinstance(getattr(m, "running_var", None), torch.Tensor)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    if hooks:
        with torch.no_grad():
            model(pixels)
    for hook in hooks:
        hook.remove()
