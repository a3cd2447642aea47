"""The work folder: results of finished steps, found again by what they were made from.

A step's folder is named by a digest of everything that its result depends on, so that a run that was killed goes on
where it stopped, and two devices that ask for the same weights share them. One process at a time works in a folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from satchel.export.progress import Progress, silent
from satchel.runtime.errors import OutputError, SatchelError

NAME = ".satchel-work"
LOCK = "lock"


class WorkFolder:
    """A folder for the steps of exports, as a context.

    Args:
        path: made if need be.
        keep: leave everything there at the end; otherwise it goes once the work is complete, or has failed with one of
            Satchel's errors. What Ctrl-C or a kill ended stays, for the next run to go on from.
        progress: told while another export works there.

    Raises:
        OutputError: it cannot be made.
    """

    def __init__(self, path: Path, *, keep: bool = False, progress: Progress = silent) -> None:
        self.path, self.keep, self._progress = path, keep, progress
        self._lock = FileLock(path / LOCK)
        self._made: list[Path] = []

    def __enter__(self) -> WorkFolder:
        try:
            for parent in reversed([self.path, *(p for p in self.path.absolute().parents if not p.exists())]):
                if not parent.exists():
                    parent.mkdir()
                    self._made.append(parent)
            self._acquire()
        except OSError as error:
            raise OutputError("no folder to work in", got=error, hint="choose another --output or --work") from error
        return self

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._progress("Waiting for another export in the same folder", 0, 1)
            self._lock.acquire()
            self._progress("Waiting for another export in the same folder", 1, 1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        done = (kind is None or issubclass(kind, SatchelError)) and not self.keep
        if done:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()
        if done:
            for folder in reversed(self._made):
                with suppress(OSError):  # those that hold a bundle stay
                    folder.rmdir()

    def step(self, kind: str, *made_from: Any) -> Path:
        """The folder of a step, made if need be.

        Args:
            kind: of step, the beginning of the folder's name.
            made_from: all that the result depends on, as JSON values.
        """
        content = json.dumps(made_from, sort_keys=True, separators=(",", ":"))
        folder = self.path / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:24]}"
        folder.mkdir(exist_ok=True)
        return folder

    def drop(self, step: Path) -> None:
        """Removes a step's folder that is of no more use. A kill meanwhile leaves no half of it under its name."""
        gone = step.with_name(f"gone-{step.name}")
        shutil.rmtree(gone, ignore_errors=True)
        step.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)
