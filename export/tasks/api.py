"""`satchel export MODEL --task TASK`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from satchel.export.module.capture import flatten, named_dimensions, trace
from satchel.export.module.model import ModuleModel, Part, count_parameters, make_part
from satchel.export.module.pipeline import ModuleOptions, export_parts
from satchel.export.module.program import Inputs, Program
from satchel.export.tasks import TASKS
from satchel.export.tasks.base import Built, Graph
from satchel.export.tasks.checkpoint import TaskCheckpoint, open_task
from satchel.runtime.manifest import ModelInfo
from satchel.runtime.module.bundle import ModuleBundle


def export_task(
    model: str | Path, task: str, devices: str | Sequence[str], options: ModuleOptions
) -> list[ModuleBundle]:
    """Writes bundles of a Hugging Face model for a task.

    Args:
        model: a folder, or a hub id.
        task: a key of TASKS, a synonym of optimum's, or "auto".
        devices, options: as export_parts has them.

    Raises:
        CheckpointError, TokenizerError: the model cannot be read, or was not trained for the task.
        UsageError, FormatError, DeviceError, PlanError, OutputError, MissingPackageError: as export_module.
    """
    return export_parts(task_model(open_task(model, task, options.image_size)), devices, options)


def task_model(checkpoint: TaskCheckpoint) -> ModuleModel:
    """A model for a task, traced."""
    built: Built = importlib.import_module(TASKS[checkpoint.task]).build(checkpoint)
    parts = {name: trace_graph(graph) for name, graph in built.graphs.items()}
    about = checkpoint.tensors.info
    info = ModelInfo(
        model_id=checkpoint.source.model_id, family=str(checkpoint.config.model_type),
        author=about.author or checkpoint.source.model_id.rpartition("/")[0], license=about.license,
        license_text=about.license_text, source=about.source,
        parameters=count_parameters([part.program for part in parts.values()]),
    )  # fmt: skip
    return ModuleModel(checkpoint.source.name, parts, info, built.entry, built.files)


def trace_graph(graph: Graph) -> Part:
    """Traces a graph.

    Raises:
        UsageError: torch.export cannot.
    """

    def reference(inputs: Inputs) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            found: Mapping[str, torch.Tensor] = graph.module(*(inputs[name] for name in graph.inputs))
        return found

    return make_part(traced_program(graph), graph.examples, reference, graph.calibration)


def traced_program(graph: Graph) -> Program:
    """The program of a graph, as it was traced; errors as trace_graph."""
    shapes = [_axes(graph, name) for name in graph.inputs]
    first = tuple(graph.examples[0][name] for name in graph.inputs)
    traced = trace(graph.module, first, {}, (tuple(shapes),) if any(shapes) else None)
    program, _ = flatten(traced, inputs=graph.inputs)
    return named_dimensions(program, dict(zip(graph.inputs, shapes, strict=True)))


def _axes(graph: Graph, name: str) -> dict[int, Any]:
    """torch.export's dynamic dimensions of an input; equal ones are one, since it goes by their names."""
    return {
        axis: torch.export.Dim(dimension, min=low, max=high)
        for axis, (dimension, low, high) in graph.dynamic.get(name, {}).items()
    }
