"""A model for a task as far as its configuration tells it: no weights are read or fetched."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from satchel.export.checkpoint.base import read_json
from satchel.export.module.outline import Outline, OutlinedPart
from satchel.export.module.prepare import prepare
from satchel.export.source import HUB_FILES, resolve
from satchel.export.tasks import TASKS
from satchel.export.tasks.api import traced_program
from satchel.export.tasks.base import Built, Graph
from satchel.export.tasks.checkpoint import TaskCheckpoint, task_of, tasks_manager
from satchel.runtime.errors import CheckpointError
from satchel.runtime.quiet import quiet_imports

FILES = [pattern for pattern in HUB_FILES if pattern != "*.safetensors"]
"""What is fetched of a hub's model."""


@dataclass(frozen=True)
class Sketch(TaskCheckpoint):
    """A checkpoint whose tensors were not opened, and whose model has random numbers, since tasks try it out."""

    @cached_property
    def model(self) -> torch.nn.Module:
        """The model of the class that optimum names for the task."""
        try:
            with quiet_imports():
                kind = tasks_manager().get_model_class_for_task(self.task, "pt", self.config.model_type)
            with quiet_imports(), torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                found: torch.nn.Module = kind.from_config(self.config).eval()
        except Exception as error:  # transformers raises whatever its parts do
            raise CheckpointError("transformers cannot make the model", got=error, wanted=self.task) from error
        return found


def outline_task(model: str | Path, task: str, image_size: tuple[int, int] | None = None) -> Outline:
    """The outline of a Hugging Face model.

    Args:
        model: a folder with config.json and what prepares inputs (tokenizer.json, preprocessor_config.json), or a hub
            id, of which nothing else is fetched.
        task, image_size: as open_task has them.

    Raises:
        CheckpointError, UsageError, MissingPackageError: as export_task.
    """
    source = resolve(model, FILES)
    if not source.path.is_dir():
        raise CheckpointError("a task needs a folder of Hugging Face's", got=source.path.name, wanted="config.json")
    found = task_of(read_json(source.path / "config.json"), task)
    nothing: Any = None
    sketch = Sketch(source, found, nothing, image_size)
    with quiet_imports():
        built: Built = importlib.import_module(TASKS[found]).build(sketch)
    parts = {name: _outlined(graph) for name, graph in built.graphs.items()}
    return Outline(source.model_id, parts, sum(map(len, built.files.values())))


def _outlined(graph: Graph) -> OutlinedPart:
    return OutlinedPart(prepare(traced_program(graph), graph.examples[0]), graph.examples)
