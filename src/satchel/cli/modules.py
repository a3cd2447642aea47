"""What `satchel export` and `satchel run` do with traced modules and tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from satchel.cli.answers import plain, print_answers
from satchel.cli.console import out, print_json
from satchel.runtime.errors import UsageError
from satchel.runtime.images import LARGEST_EDGE
from satchel.runtime.module.bundle import ModuleBundle
from satchel.runtime.module.session import ModuleSession
from satchel.runtime.tasks.maps import check_target, write_maps

SAVED = (".pt2", ".pt", ".pth", ".ts")
"""Endings of what torch saves; only a torch.export program is read, and the others are refused with the way out."""


LANGUAGE = ("text-generation", "text-generation-with-past", "image-text-to-text")
"""Tasks of language models, which need no --task."""


def settled_task(model: str, task: str | None) -> str | None:
    """The task of an export: None for language models and saved programs, which "auto" tells from the others."""
    if task in LANGUAGE:
        return None
    if task != "auto":
        return task
    if Path(model).suffix in SAVED:
        return None
    from satchel.export.shape import is_language_model

    return None if is_language_model(model) else task


MAPPED = ("segments", "depth")
"""Steps whose answers say something of each pixel."""


def is_module(model: str, task: str | None) -> bool:
    """Whether an export is of a module, and not of a language model."""
    return task is not None or Path(model).suffix in SAVED


def refuse(given: Mapping[str, Any]) -> None:
    """Raises UsageError for options of language models."""
    unfit = [f"--{name}" for name, value in given.items() if value not in (None, False, 0, "threads")]
    if unfit:
        raise UsageError("options of language models, for a module", got=", ".join(unfit))


def export_modules(
    model: str, task: str | None, devices: list[str], name: str | None, given: Mapping[str, Any]
) -> list[ModuleBundle]:
    """Exports a saved program, or a model for a task; `given` are fields of ModuleOptions, `image_size` as typed."""
    from satchel.export.module.pipeline import ModuleOptions

    size = given.get("image_size")
    options = ModuleOptions(**{**given, "image_size": size_of(size) if size is not None else None})
    if task is None:
        from satchel.export.module.api import export_program_file

        refuse_size(model, size)
        return export_program_file(model, devices, options, name=name)
    from satchel.export.tasks.api import export_task

    return export_task(model, task, devices, options)


def outline_of(model: str, task: str | None, image_size: str | None = None) -> Any:
    """The Outline of a saved program, or of a model for a task; `image_size` as typed."""
    if task is None:
        from satchel.export.module.outline import outline_file

        refuse_size(model, image_size)
        return outline_file(Path(model))
    from satchel.export.tasks.outline import outline_task

    return outline_task(model, task, size_of(image_size) if image_size is not None else None)


def refuse_size(model: str, image_size: str | None) -> None:
    """Raises UsageError for a size of pictures where there is no task."""
    if image_size is not None:
        raise UsageError("--image-size is for tasks", got=model, wanted="--task")


def size_of(text: str) -> tuple[int, int]:
    """Height and width of "480x640", or of "512"; raises UsageError for anything else."""
    edges = text.lower().split("x")
    if len(edges) > 2 or not all(
        edge.isascii() and edge.isdigit() and 1 <= int(edge) <= LARGEST_EDGE for edge in edges
    ):
        raise UsageError("a size of pictures", got=text, wanted="HEIGHTxWIDTH, such as 480x640")
    return int(edges[0]), int(edges[-1])


def answer(session: ModuleSession, given: Mapping[str, Any], as_json: bool, output: Path | None = None) -> None:
    """Prints what a module with a task says.

    Args:
        session: loaded.
        given: by the user, by kind.
        as_json: whether one JSON document is printed.
        output: where what it says of each pixel is written.
    """
    if output is not None:
        _check_output(session, output)
    start = time.perf_counter()
    found = session.answer(**given)
    seconds = round(time.perf_counter() - start, 3)
    files = [] if output is None else [str(path) for path in write_maps(output, found)]
    if as_json:
        written = {"files": files} if files else {}
        print_json({"task": session.info["task"], "answer": plain(found), "seconds": seconds, **written})
        return
    print_answers(found, given.get("image", ()))
    for path in files:
        out.print(f"written: {path}", markup=False)


def _check_output(session: ModuleSession, output: Path) -> None:
    task = session.bundle.manifest.module.task
    if task is None or task.answer.get("step") not in MAPPED:
        raise UsageError("nothing to write, for this task", got=f"--output {output}", wanted="segmentation or depth")
    check_target(output)
