"""Curvature of the linears of any torch module, in memory, by hooks.

fisher.py streams a language model's layers; here the whole module lies in memory and is told apart into its
torch.nn.Linear modules. What an error costs is said by a function from the module's outputs to a number: the curvature
is the mean square of its gradient.

    a likelihood:        -log p of a label that is drawn from the model's own distribution (the Fisher information)
    a squared distance:  random_projection of the output (Gauss-Newton: E[(J'z)(J'z)'] = J'J for z of unit covariance)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from satchel.export.calibration.sums import Sums
from satchel.export.palettize.curvature import Curvature

Batch = Mapping[str, torch.Tensor]
"""Keyword arguments of a module, the items of the batch along each one's first axis."""
Hook = Callable[[str, torch.Tensor, torch.Tensor], None]


def curvatures(
    module: torch.nn.Module, batches: Iterable[Batch], scalar: Callable[[Any, Batch], torch.Tensor]
) -> dict[str, Curvature]:
    """The curvature of every torch.nn.Linear that the number depends on.

    Args:
        module: in evaluation mode; its gradients are left as they are.
        batches: what it is called with.
        scalar: (what the module returned, the batch) -> a number, summed over the items of the batch.

    Returns:
        Name of the linear in the module -> curvature for one item. `Curvature.loss` of an error is then half the mean
        square of what it changes at the number. A linear that is called several times for an item, once a token, has
        its calls taken as independent.
    """
    sums, items = Sums(), 0

    def seen(name: str, x: torch.Tensor, y: torch.Tensor) -> None:
        y.register_hook(lambda gradient: sums.add(name, x.detach(), gradient))

    with _watched(module, seen), torch.enable_grad(), _trainable_inputs(module):
        for batch in batches:
            scalar(module(**batch), batch).backward()  # type: ignore[no-untyped-call]
            items += _items(batch)
    return sums.result(items)


def mean_squares(module: torch.nn.Module, batches: Iterable[Batch]) -> dict[str, np.ndarray]:
    """Name of each torch.nn.Linear that is called -> mean square of each input channel, float32 [columns].

    Positions that an `attention_mask` of the batch leaves out are not counted, where the input has them.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = {}
    mask: torch.Tensor | None = None

    def seen(name: str, x: torch.Tensor, y: torch.Tensor) -> None:
        rows = x[mask.bool()] if mask is not None and x.shape[:-1] == mask.shape else x.reshape(-1, x.shape[-1])
        sums[name] = sums.get(name, torch.zeros(x.shape[-1])) + rows.square().sum(0)
        counts[name] = counts.get(name, 0) + len(rows)

    with _watched(module, seen), torch.no_grad():
        for batch in batches:
            mask = batch.get("attention_mask")
            module(**batch)
    return {name: (total / counts[name]).numpy() for name, total in sums.items()}


def random_projection(output: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A number whose gradient has the curvature of half the squared distance to `output`, [items, ...]."""
    return (output * torch.randn(output.shape, generator=generator)).sum()


def linears(module: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    """Name -> torch.nn.Linear, in the order that the module has them."""
    return {name: part for name, part in module.named_modules() if isinstance(part, torch.nn.Linear)}


@contextmanager
def _watched(module: torch.nn.Module, seen: Hook) -> Iterator[None]:
    """Calls `seen` with name, input and output of every linear, until the end."""

    def hook(name: str, part: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen(name, inputs[0], output)

    handles = [part.register_forward_hook(partial(hook, name)) for name, part in linears(module).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _trainable_inputs(module: torch.nn.Module) -> Iterator[None]:
    """Lets gradients reach every linear, for which its bias is enough if it has one, and puts all back at the end."""
    before = {p: p.requires_grad for p in module.parameters()}
    gradients = {p: p.grad for p in before}
    for parameter in before:
        parameter.grad = None
    needed = {id(part.bias if part.bias is not None else part.weight) for part in linears(module).values()}
    for parameter in before:
        parameter.requires_grad_(id(parameter) in needed)
    try:
        yield
    finally:
        for parameter, required in before.items():
            parameter.requires_grad_(required)
            parameter.grad = gradients[parameter]


def _items(batch: Batch) -> int:
    return int(next(iter(batch.values())).shape[0])
