"""Rounded linears that answer for each other: all scales moved together, by what the whole model loses.

Rounding judges each linear alone, as if all others were exact. Here the model runs as it was rounded, and the gradient
of its KL divergence from the original moves the scales of all linears (palettize/scaling.py), over some passes through
the calibration text. A layer's activations and gradients are made anew on the way back, and then its linears moved.

Some of the text is kept apart. A pass after which the model loses more there is undone, and is the last: of little
text, what is learned may be the text. A run that was killed goes on from its last complete pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from math import cos, pi
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from satchel.export.calibration.fisher import reduced_precision
from satchel.export.decoder import block, embed, head
from satchel.export.families.base import DecoderConfig
from satchel.export.memory import BATCH_TOKENS, HEAD_LOGITS
from satchel.export.ops.base import Weights
from satchel.export.ops.torch import Cache, TorchOps
from satchel.export.palettize.scaling import Scaling
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import OutputError
from satchel.runtime.memory import return_freed_memory

PASSES = 3
"""Over the calibration text."""
APART = 24
"""Of so many sequences one is kept apart, to see whether a pass was worth it."""
RATE = 0.0005
"""What share of itself a step moves a scale by, at the most: after the first WARM_UP of a pass. Until the pass ends it
falls to nothing along half a cosine, so that what the pass led to can be judged."""
WARM_UP = 5


def tuned(
    config: DecoderConfig,
    original: Weights,
    start: Weights,
    ids: np.ndarray,
    folder: Path,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Iterator[tuple[str, Matrix]]:
    """The layers' linears after tuning; those of 8 bits and more stay as they are.

    Args:
        config: shape of the decoder.
        original: its weights.
        start: the same, rounded.
        ids: int64 [sequences, length], the calibration text.
        folder: for the state after each pass; it exists.
        seed: of the order of the text.
        progress: told after each step.

    Yields:
        (canonical name, matrix) of every linear.

    Raises:
        OutputError: no space for the state.
    """
    names = list(config.linear_shapes())
    if len(ids) < 2:  # nothing to judge by
        yield from ((name, start.matrix(name)) for name in names)
        return
    tokens = torch.from_numpy(ids)
    wanted = _final_states(config, original, tokens)
    return_freed_memory()
    scalings = {name: found for name in names if (found := _begun(start.matrix(name)))}
    tuning = _Tuning(config, original, start, scalings)
    kept = _Kept(folder, scalings)
    apart, passes = _apart(len(ids)), _passes(len(ids), ids.shape[1], seed)
    done, steps = kept.load(), sum(map(len, passes))
    best = tuning.loss(tokens[apart], wanted[apart])
    for batches in passes[done // len(passes[0]) :]:
        for number, batch in enumerate(batches, 1):
            done += 1
            tuning.step(tokens[batch], wanted[batch], done, _rate(number, len(batches)))
            progress("Tuning the rounded weights", done, steps)
        loss = tuning.loss(tokens[apart], wanted[apart])
        if loss >= best:
            kept.load()
            break
        best = loss
        kept.save(done)
    progress("Tuning the rounded weights", steps, steps)
    for name in names:
        yield name, scalings[name].matrix() if name in scalings else start.matrix(name)


def _begun(matrix: Matrix) -> Scaling | None:
    return Scaling(matrix) if isinstance(matrix, AffineTensor | PalettizedTensor) and matrix.bits < 8 else None


def _apart(count: int) -> np.ndarray:
    """The sequences that the rest is judged on."""
    return np.arange(0, count, APART)


def _passes(count: int, length: int, seed: int) -> list[list[np.ndarray]]:
    """For each pass the sequences of each step."""
    random = np.random.Generator(np.random.PCG64(seed))
    size, used = max(1, BATCH_TOKENS // length), np.setdiff1d(np.arange(count), _apart(count))
    orders = [random.permutation(used) for _ in range(PASSES)]
    return [[order[i : i + size] for i in range(0, len(used), size)] for order in orders]


def _rate(number: int, steps: int) -> float:
    """Of one step of a pass, from 1 on."""
    return RATE * min(1.0, number / WARM_UP) * (1 + cos(pi * (number - 1) / steps)) / 2


@reduced_precision()
@torch.no_grad()
def _final_states(config: DecoderConfig, weights: Weights, tokens: torch.Tensor) -> torch.Tensor:
    """What the head reads, float32 [sequences, length, hidden]."""
    ops = TorchOps(config, weights)
    return torch.cat([_borders(ops, batch)[-1] for batch in tokens.split(max(1, BATCH_TOKENS // tokens.shape[1]))])


def _borders(ops: TorchOps, ids: torch.Tensor) -> list[torch.Tensor]:
    """Activations before each layer and after the last."""
    ops.begin(ids, 0, Cache())
    found = [embed(ops)]
    for layer in range(ops.config.layers):
        found.append(block(ops, found[-1], layer))
    return found


class _Moving(TorchOps):
    """The torch op set over matrices that change in place."""

    def __init__(self, config: DecoderConfig, weights: Weights, scalings: Mapping[str, Scaling]) -> None:
        super().__init__(config, weights)
        self.leaves = {name: torch.from_numpy(t.values).requires_grad_(True) for name, t in scalings.items()}
        self._vectors: dict[str, torch.Tensor] = {}

    def _matrix(self, name: str) -> torch.Tensor:
        return self.leaves[name] if name in self.leaves else super()._matrix(name)

    def _vector(self, name: str) -> torch.Tensor:
        if name not in self._vectors:
            self._vectors[name] = super()._vector(name)
        return self._vectors[name]


class _Tuning:
    """The model on its way, beside the head of the original."""

    def __init__(
        self, config: DecoderConfig, original: Weights, start: Weights, scalings: Mapping[str, Scaling]
    ) -> None:
        self._config, self._scalings = config, scalings
        self._ops, self._original = _Moving(config, start, scalings), TorchOps(config, original)

    @reduced_precision()
    def step(self, ids: torch.Tensor, wanted: torch.Tensor, number: int, rate: float) -> float:
        """Moves all matrices by the gradient at some sequences; returns their mean KL divergence before.

        Args:
            ids: int64 [batch, length].
            wanted: what the head of the original reads there.
            number: of the step, from 1 on in all passes.
            rate: of the step.
        """
        with torch.no_grad():
            borders = _borders(self._ops, ids)
        loss, gradient = self._at_the_end(borders.pop(), wanted)
        for layer in reversed(range(self._config.layers)):
            x = borders.pop().requires_grad_(True)
            self._ops.begin(ids, 0, Cache())
            block(self._ops, x, layer).backward(gradient)  # type: ignore[no-untyped-call]
            assert x.grad is not None
            gradient = x.grad
            self._move(f"layers.{layer}.", number, rate)
        return loss

    @reduced_precision()
    @torch.no_grad()
    def loss(self, ids: torch.Tensor, wanted: torch.Tensor) -> float:
        """The mean divergence at some sequences; arguments as `step` has them."""
        found = [
            self._at_the_end(_borders(self._ops, i)[-1], w)[0]
            for i, w in zip(ids.split(1), wanted.split(1), strict=True)
        ]
        return sum(found) / len(found)

    @torch.enable_grad()
    def _at_the_end(self, x: torch.Tensor, wanted: torch.Tensor) -> tuple[float, torch.Tensor]:
        """The mean divergence, and its gradient at what the head reads."""
        size, total, parts = max(1, HEAD_LOGITS // self._config.vocab_size), 0.0, []
        count = x.shape[0] * x.shape[1]
        for mine, other in zip(*(t.flatten(0, 1)[None].split(size, 1) for t in (x, wanted)), strict=True):
            with torch.no_grad():
                target = torch.log_softmax(head(self._original, self._config, other), -1)
            mine = mine.detach().requires_grad_(True)
            found = torch.log_softmax(head(self._ops, self._config, mine), -1)
            loss = F.kl_div(found, target, reduction="sum", log_target=True) / count
            loss.backward()  # type: ignore[no-untyped-call]
            assert mine.grad is not None
            parts.append(mine.grad)
            total += float(loss.detach())
        return total, torch.cat(parts, 1).view(x.shape)

    def _move(self, prefix: str, number: int, rate: float) -> None:
        for name, leaf in self._ops.leaves.items():
            if name.startswith(prefix):
                assert leaf.grad is not None
                self._scalings[name].step(leaf.grad.numpy(), number, rate)
                leaf.grad = None


class _Kept:
    """The state after the last pass that was worth it, in a file that is renamed into place."""

    def __init__(self, folder: Path, scalings: Mapping[str, Scaling]) -> None:
        self._path, self._scalings = folder / "state.safetensors", scalings

    def save(self, steps: int) -> None:
        """Notes that so many steps are done."""
        aside = self._path.with_suffix(".part")
        state = {f"{name}/{key}": values for name, s in self._scalings.items() for key, values in s.state.items()}
        try:
            save_file(state, aside, metadata={"steps": str(steps)})
            aside.replace(self._path)
        except (OSError, SafetensorError) as error:
            hint = "make room on the disk of the output folder, or choose another --output"
            raise OutputError("the tuned scales cannot be written", got=error, hint=hint) from error

    def load(self) -> int:
        """Takes up that state, or the first of all; returns how many steps it is after."""
        with suppress(OSError, SafetensorError), safe_open(self._path, framework="numpy") as file:  # there, and whole
            for name, scaling in self._scalings.items():
                scaling.load({key: file.get_tensor(f"{name}/{key}") for key in scaling.state})
            return int(file.metadata()["steps"])
        for scaling in self._scalings.values():
            scaling.reset()
        return 0
