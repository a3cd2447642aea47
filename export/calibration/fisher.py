"""What an error in a weight costs, measured layer by layer: the Fisher information of each linear, one layer in memory.

An error D [rows, columns] in a linear with input x and gradient g at its output changes the log-likelihood of what the
model would say by g' D x, to first order; the KL divergence to the unchanged model is half the mean square of that.
With the rows taken as independent of each other,

    KL ~ 1/2 sum_r share[r] * (D H D')[r, r],    H = E[|g|^2 x x'],    share[r] = E[g[r]^2] / E[|g|^2].

Labels are drawn from the model's own distribution, so that the mean square of the gradients is the Fisher information
(see Kunstner, Hennig and Balles, "Limitations of the empirical Fisher approximation", NeurIPS 2019). H in place of the
plain E[x x'] is what made the largest difference of all that was tried (docs/quantization.md).

Nothing is held but one layer: activations at the borders of layers lie in a file (borders.py), the way back reads them
and runs each layer once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from satchel.export.calibration.borders import Borders
from satchel.export.calibration.sums import Sums
from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.memory import BATCH_LOGITS, BATCH_TOKENS
from satchel.export.ops.base import Weights
from satchel.export.ops.torch import Cache, TorchOps
from satchel.export.palettize.curvature import Curvature
from satchel.export.progress import Progress, silent
from satchel.runtime.memory import return_freed_memory


@contextmanager
def reduced_precision() -> Iterator[None]:
    """Matrix products in bfloat16 with sums in fp32, where the processor has instructions for it: several times as
    fast, and as good for statistics."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if torch.cpu.get_capabilities().get("amx_bf16"):
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


class _Observed(TorchOps):
    """The torch op set, whose linears tell `sums` their input and the gradient at their output."""

    def __init__(self, config: DecoderConfig, weights: Weights, sums: Sums) -> None:
        super().__init__(config, weights)
        self._sums = sums

    def _linear(self, x: torch.Tensor, name: str, matrix: str) -> torch.Tensor:
        y = super()._linear(x, name, matrix)
        seen = x.detach()
        y.register_hook(lambda gradient: self._sums.add(name, seen, gradient))
        return y


def curvatures(
    config: DecoderConfig,
    weights: Weights,
    ids: np.ndarray,
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Iterator[tuple[int, Mapping[str, Curvature]]]:
    """The Fisher information of every linear of the layers, the last layer first.

    Args:
        config: shape of the decoder.
        weights: uncompressed; a layer's matrices are read twice, once for each way.
        ids: int64 [sequences, length], the calibration text.
        folder: for (layers + 1) * ids.size * hidden_size * 2 bytes of activations and a gradient of as many elements as
            one layer's. Where an earlier run was ended before its time, this one goes on: a layer whose successor in
            this iteration was asked for is not yielded again.
        seed: of the labels drawn from the model.
        progress: told after each layer of each way.

    Yields:
        (layer, canonical name -> curvature); what was yielded is not kept.
    """
    tokens = torch.from_numpy(ids)
    batches = tokens.split(max(1, BATCH_TOKENS // ids.shape[1]))
    borders = Borders(folder, config, (ids.shape[0], ids.shape[1]))
    _forward(config, weights, batches, borders, progress)
    done = borders.load_gradient()
    if done is None:
        done = config.layers, _at_the_end(config, weights, tokens, borders, seed)
        borders.save_gradient(*done)
    border, gradient = done
    for layer in reversed(range(border)):
        progress("Measuring curvature", 2 * config.layers - layer - 1, 2 * config.layers)
        yield layer, _backward(config, weights, batches, borders, layer, gradient)
        borders.save_gradient(layer, gradient)
        return_freed_memory()  # else the heap grows with every layer, by holes that nothing fits into
    progress("Measuring curvature", 2 * config.layers, 2 * config.layers)


@reduced_precision()
def _forward(
    config: DecoderConfig, weights: Weights, batches: tuple[torch.Tensor, ...], borders: Borders, progress: Progress
) -> None:
    with torch.inference_mode():
        for layer in range(borders.written - 1, config.layers):
            ops, start = TorchOps(config, weights), 0
            for batch in batches:
                ops.begin(batch, 0, Cache())
                x = embed(ops) if layer < 0 else block(ops, borders.get(layer, start, len(batch)), layer)
                borders.put(layer + 1, start, x)
                start += len(batch)
            borders.finish(layer + 1)
            return_freed_memory()
            progress("Measuring curvature", layer + 1, 2 * config.layers)


@reduced_precision()
def _at_the_end(
    config: DecoderConfig, weights: Weights, tokens: torch.Tensor, borders: Borders, seed: int
) -> torch.Tensor:
    """Gradient of -log p(label) at the last border, fp32 [sequences, length, hidden], labels drawn from p."""
    random = torch.Generator().manual_seed(seed)
    ops, start, parts = TorchOps(config, weights), 0, []
    for batch in tokens.split(max(1, BATCH_LOGITS // (tokens.shape[1] * config.vocab_size))):
        x = borders.get(config.layers, start, len(batch)).requires_grad_(True)
        ops.begin(batch, 0, Cache())
        logits = head(ops, config, x).flatten(0, 1)
        labels = torch.multinomial(torch.softmax(logits.detach(), -1), 1, generator=random)[:, 0]
        torch.nn.functional.cross_entropy(logits, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        parts.append(x.grad)
        start += len(batch)
    return torch.cat(parts)


@reduced_precision()
def _backward(
    config: DecoderConfig,
    weights: Weights,
    batches: tuple[torch.Tensor, ...],
    borders: Borders,
    layer: int,
    gradient: torch.Tensor,
) -> Mapping[str, Curvature]:
    """Runs a layer again and takes `gradient` through it, in place: from its end to its beginning."""
    sums, start = Sums(), 0
    ops = _Observed(config, weights, sums)
    for batch in batches:
        part = gradient[start : start + len(batch)]
        x = borders.get(layer, start, len(batch)).requires_grad_(True)
        ops.begin(batch, 0, Cache())
        block(ops, x, layer).backward(part)  # type: ignore[no-untyped-call]
        assert x.grad is not None
        part.copy_(x.grad)
        start += len(batch)
    return sums.result(start * batches[0].shape[1])
