"""What a task makes of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from satchel.export.module.program import Inputs
from satchel.runtime.module.manifest import TaskEntry

Forward = Callable[..., Mapping[str, torch.Tensor]]


class Wrapped(torch.nn.Module):
    """A model whose inputs are tensors in a fixed order, and whose outputs are some of its own, by name.

    Args:
        model: in eval mode.
        inputs: names of its arguments.
        outputs: keys of its result -> names.
        fixed: further arguments.
    """

    def __init__(
        self, model: torch.nn.Module, inputs: Sequence[str], outputs: Mapping[str, str],
        fixed: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = model
        self.training = model.training
        self._inputs, self._outputs, self._fixed = tuple(inputs), dict(outputs), dict(fixed or {})

    def forward(self, *values: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        given = dict(zip(self._inputs, values, strict=True))
        found = self.model(**given, **self._fixed)
        return {name: found[key] for key, name in self._outputs.items()}


@dataclass(frozen=True)
class Graph:
    """One graph that is to be traced.

    Attributes:
        module: takes tensors in the order of `inputs`, gives a dict.
        inputs: names.
        examples: at least one; real inputs, since activations are measured on them, and golden data are made of them.
        dynamic: for each input, axis -> (name, smallest, largest).
        calibration: further real inputs that activations are measured on.
    """

    module: torch.nn.Module
    inputs: tuple[str, ...]
    examples: tuple[Inputs, ...]
    dynamic: Mapping[str, Mapping[int, tuple[str, int, int]]] = field(default_factory=dict)
    calibration: tuple[Inputs, ...] = ()


@dataclass(frozen=True)
class Built:
    """What a task makes of a checkpoint.

    Attributes:
        graphs: name of each part -> graph; "model" where there is one.
        entry: what comes before and after, as data.
        files: further files of the bundle.
    """

    graphs: Mapping[str, Graph]
    entry: TaskEntry
    files: Mapping[str, bytes] = field(default_factory=dict)
