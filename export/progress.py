"""How long work tells how far it is. The command line turns it into a bar; a library user may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, and how many of how many steps are finished."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Reports progress; `done == total` ends the stage."""
        ...


def silent(stage: str, done: int, total: int) -> None:
    """Reports nothing."""
