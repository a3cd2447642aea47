"""What a network in these tests is: a torch module, inputs for it, and how coremltools converts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Network:
    """A torch network and its conversion.

    Attributes:
        make: builds the module, seeded.
        calls: inputs of one call after the other, by name in the order of forward(); several where there are states.
        wanted: a function of (module, calls) that gives every call's outputs in order; by default the module's own.
        route: how torch hands it over, "trace", "script" or "export".
        target: the oldest system that it is for, as coremltools names it.
        options: further arguments of ct.convert: inputs, outputs, states.
        compress: what happens to the model after its conversion.
        fp32: largest difference from torch, relative to the largest value of the output.
        fp16: the same with every value rounded to fp16: some units of 2**-11, by the depth of the network.
        ops: ops that the saved program must hold, or the test would not be about them.
    """

    make: Callable[[], torch.nn.Module]
    calls: Callable[[], Sequence[Arrays]]
    wanted: Callable[[torch.nn.Module, Sequence[Arrays]], list[list[np.ndarray]]] | None = None
    route: str = "trace"
    target: str = "iOS17"
    options: Callable[[], dict[str, Any]] = field(default=dict)
    compress: Callable[[Any], Any] | None = None
    fp32: float = 1e-5
    fp16: float = 4e-3
    ops: tuple[str, ...] = ()

    def module(self) -> torch.nn.Module:
        """The network, the same at every call."""
        torch.manual_seed(0)
        return self.make().eval()

    def reference(self) -> list[list[np.ndarray]]:
        """What torch gives for every call."""
        if self.wanted:
            return self.wanted(self.module(), self.calls())
        return run_torch(self.module(), self.calls())


def run_torch(module: torch.nn.Module, calls: Sequence[Arrays]) -> list[list[np.ndarray]]:
    """Outputs of every call, one after the other."""
    found = []
    with torch.no_grad():
        for arrays in calls:
            result = module(*[torch.from_numpy(a.copy()) for a in arrays.values()])
            found.append([r.numpy().copy() for r in (result if isinstance(result, tuple) else (result,))])
    return found


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Seeded float32 normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def tokens(*shape: int, below: int, seed: int = 0) -> np.ndarray:
    """Seeded int32 numbers."""
    return np.random.default_rng(seed).integers(0, below, shape).astype(np.int32)


def settled(module: torch.nn.Module, *inputs: torch.Tensor) -> torch.nn.Module:
    """The module after some training-mode passes, so that batch norms have statistics of their own."""
    module.train()
    with torch.no_grad():
        for _ in range(3):
            module(*inputs)
    for name, parameter in module.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return module.eval()
