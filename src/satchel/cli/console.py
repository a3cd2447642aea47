"""What the commands share: how they print, show progress, and fail.

Answers go to standard output, progress and errors to standard error. Exit codes: 0 good, 1 validation failed, 2 bad
input. With --json standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from satchel.runtime.errors import SatchelError, ValidationError

# Tables keep their width where nobody's terminal limits it, so that a log or a pipe gets whole paths.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, soft_wrap=True)  # a path that is broken in two cannot be copied


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def fail(error: SatchelError, *, as_json: bool = False) -> typer.Exit:
    """Prints an error as its parts, and gives the exit to raise: 1 for a failed validation, 2 for anything else."""
    code = 1 if isinstance(error, ValidationError) else 2
    if as_json:
        parts = {"what": error.what, "got": error.got, "wanted": error.wanted, "hint": error.hint}
        shown = {k: v if isinstance(v, int | float | str) else str(v) for k, v in parts.items() if v not in (None, "")}
        print_json({"error": type(error).__name__, **shown})
        return typer.Exit(code)
    err.print(f"error: {error.what}", style="bold red", markup=False)
    for label, value in (("got", error.got), ("wanted", error.wanted), ("next", error.hint)):
        if value not in (None, ""):
            err.print(f"  {label + ':':8}{value}", markup=False)
    return typer.Exit(code)


@contextmanager
def errors(as_json: bool) -> Iterator[None]:
    """Turns Satchel's errors and Ctrl-C into messages and exit codes."""
    try:
        yield
    except SatchelError as error:
        raise fail(error, as_json=as_json) from error
    except KeyboardInterrupt as interrupt:
        err.print(
            "interrupted; nothing half-written was left, and an export goes on from its last finished step",
            style="yellow",
        )
        raise typer.Exit(130) from interrupt


class Bars:
    """A `Progress` (export/progress.py) that draws a bar a stage. Quiet when standard error is no terminal."""

    def __init__(self, enabled: bool) -> None:
        self._stages: dict[str, Any] = {}
        self._bars = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            console=err, disable=not (enabled and err.is_terminal),
        )  # fmt: skip

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Moves the bar of a stage, and makes one when it is new."""
        if stage not in self._stages or self._bars.tasks[self._stages[stage]].finished:
            self._stages[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._stages[stage], completed=done, total=total)


def megabytes(count: int) -> str:
    """Bytes as decimal megabytes."""
    return f"{count / 1e6:,.1f} MB"
