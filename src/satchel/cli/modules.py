"""What `satchel export` and `satchel run` do with traced modules and tasks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from satchel.cli.console import out, print_json
from satchel.runtime.errors import UsageError
from satchel.runtime.module.bundle import ModuleBundle
from satchel.runtime.module.session import ModuleSession

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
    """Exports a saved program, or a model for a task; `given` are fields of ModuleOptions."""
    from satchel.export.module.pipeline import ModuleOptions

    options = ModuleOptions(**given)
    if task is None:
        from satchel.export.module.api import export_program_file

        return export_program_file(model, devices, options, name=name)
    from satchel.export.tasks.api import export_task

    return export_task(model, task, devices, options)


def outline_of(model: str, task: str | None) -> Any:
    """The Outline of a saved program, or of a model for a task."""
    if task is None:
        from satchel.export.module.outline import outline_file

        return outline_file(Path(model))
    from satchel.export.tasks.outline import outline_task

    return outline_task(model, task)


def answer(session: ModuleSession, given: Mapping[str, Any], as_json: bool) -> None:
    """Prints what a module with a task says."""
    start = time.perf_counter()
    found = _plain(session.answer(**given))
    seconds = round(time.perf_counter() - start, 3)
    if as_json:
        print_json({"task": session.info["task"], "answer": found, "seconds": seconds})
        return
    for one in found if isinstance(found, list) else [found]:
        _print(one)


def _print(one: Any) -> None:
    """One answer: rows of names and scores, or whatever it is."""
    if isinstance(one, list) and one and all(isinstance(row, dict) for row in one):
        for row in one:
            _print(row)
    elif isinstance(one, dict):
        score = f"{one['score']:.3f}  " if "score" in one else ""
        name = next((str(one[key]) for key in ("answer", "text", "token") if key in one), "")
        out.print(f"{score}{one.get('label', '')} {name}".strip(), markup=False)
        for part in (*one.get("segments", ()), *one.get("words", ())) if "text" in one else ():  # of speech
            out.print(f"{part['start']:8.2f} s to {part['end']:.2f} s  {part['text'].strip()}", markup=False)
    elif isinstance(one, list) and len(one) > 8 and all(isinstance(x, float) for x in one):
        out.print(f"{len(one)} numbers: {', '.join(f'{x:.4f}' for x in one[:8])}, ...", markup=False)
    elif isinstance(one, list):
        for part in one:
            _print(part)
    else:
        out.print(str(one), markup=False)


def _plain(found: Any) -> Any:
    return found.tolist() if isinstance(found, np.ndarray) else found
