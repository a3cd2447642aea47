"""The work folder: results of finished steps, found again by what they were made from.

A step's folder is named by a digest of everything that its result depends on, so that a run that was killed goes on
where it stopped, and two devices that ask for the same weights share them. One process at a time works in a folder; its
lock lies beside it, so that the folder can be moved away as a whole before it is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from contextlib import suppress
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from satchel.export.progress import Progress, silent
from satchel.runtime.errors import OutputError, SatchelError

NAME = ".satchel-work"
LAYOUT = 2
"""Goes up when files of steps change, so that those of another version are not read."""


def work_folder(path: str | Path | None, output: Path, progress: Progress = silent) -> WorkFolder:
    """The one that a user named, which is kept, or else one beside the bundles, which is not."""
    return WorkFolder(output / NAME if path is None else Path(path), keep=path is not None, progress=progress)


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
        self.path, self.keep, self._progress = Path(os.path.abspath(path)), keep, progress
        self._lock = FileLock(self.path.with_name(f"{self.path.name}.lock"))
        self._made: list[Path] = []

    def __enter__(self) -> WorkFolder:
        try:
            self._acquire()
            self._clear()
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            self._remove_lock()
            self._remove_parents()
            raise OutputError("no folder to work in", got=error, hint="choose another --output or --work") from error
        return self

    def _acquire(self) -> None:
        while not self._lock.is_locked:
            self._make_parents()
            with suppress(FileNotFoundError):  # an export that had the lock has removed the parents with it
                self._wait()

    def _make_parents(self) -> None:
        for parent in reversed([p for p in self.path.parents if not p.exists()]):
            parent.mkdir(exist_ok=True)
            self._made.append(parent)

    def _wait(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            self._progress("Waiting for another export in the same folder", 0, 1)
            self._lock.acquire()
            self._progress("Waiting for another export in the same folder", 1, 1)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (kind is None or issubclass(kind, SatchelError)) and not self.keep:
            with suppress(OSError):  # moved first: what is removed in part must not be taken for steps
                self.path.rename(self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}.removed"))
            self._clear()
            self._remove_lock()
            self._remove_parents()
        else:
            self._remove_lock()

    def clear_remains(self) -> None:
        """Removes what a run left that was killed while it removed its work folder; steps stay."""
        if self.path.parent.is_dir():
            with suppress(Timeout):
                self._lock.acquire(timeout=0)
                self._clear()
                self._remove_lock()

    def _clear(self) -> None:
        for old in self.path.parent.glob(f"{escape(self.path.name)}.*.removed"):
            shutil.rmtree(old, ignore_errors=True)
        for old in self.path.glob("gone-*"):
            shutil.rmtree(old, ignore_errors=True)

    def _remove_lock(self) -> None:
        if self._lock.is_locked:
            with suppress(OSError):  # those who wait notice that it is gone, and make a new one
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _remove_parents(self) -> None:
        for folder in reversed(self._made):
            with suppress(OSError):  # those that hold a bundle stay
                folder.rmdir()

    def place(self, kind: str, *made_from: Any) -> Path:
        """The folder of a step, which need not exist.

        Args:
            kind: of step, the beginning of the folder's name.
            made_from: all that the result depends on, as JSON values.
        """
        content = json.dumps([LAYOUT, *made_from], sort_keys=True, separators=(",", ":"))
        return self.path / f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:24]}"

    def step(self, kind: str, *made_from: Any) -> Path:
        """The same folder, made if need be."""
        folder = self.place(kind, *made_from)
        folder.mkdir(exist_ok=True)
        return folder

    def drop(self, step: Path) -> None:
        """Removes a step's folder that is of no more use. A kill meanwhile leaves no half of it under its name."""
        gone = step.with_name(f"gone-{step.name}")
        shutil.rmtree(gone, ignore_errors=True)
        step.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)
