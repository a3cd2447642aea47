"""Exports of a tiny model that are killed at random moments, each in a forked child: a program of its own.

    killed_exports.py FOLDER OUT KILLS SEED

It imports everything and exports once undisturbed, then forks children that export, until so many have been killed;
each time the export is started again, until it finishes. By turns a child is killed after a random time, and before a
random one of its changes to the file system, where a kill does the most harm. Standard output gets JSON lines.
OMP_NUM_THREADS=1 is asked for, since a process is forked that must have no other threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import satchel
from satchel.export.palettize import compress
from satchel.export.palettize.spec import CALIBRATION, Calibration
from satchel.runtime.errors import OutputError

DEVICES = ("iphone-15-pro", "pixel-9")
OPTIONS = {"context": 64, "effort": "normal"}
PLAN = ({"weights": "palette"}, {"weights": "int4", "effort": "high"})
"""What is exported by turns."""


def small_calibration() -> None:
    """Makes calibration a matter of a second."""
    CALIBRATION["normal"] = CALIBRATION["high"] = Calibration(own=2, shipped=3, length=32)


def hashes(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all files, bundles and what is left beside them."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def count_work(log: Path) -> None:
    """Appends a line to `log` for each compressed matrix: the function and its arguments, but for curvatures."""

    def counted(function: Callable) -> Callable:
        def call(*arguments: object) -> object:
            told = [str(a) if not hasattr(a, "sum") else _digest(a) for a in arguments if not _is_curvature(a)]
            with log.open("a") as file:
                file.write(json.dumps([function.__name__, *told]) + "\n")
            return function(*arguments)

        return call

    compress.candidates = counted(compress.candidates)
    compress.compress_matrix = counted(compress.compress_matrix)


def _is_curvature(value: object) -> bool:
    return hasattr(value, "hessian")


def _digest(array: object) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:12]  # type: ignore[attr-defined]


class Stage:
    """Tells what an export is doing, through a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.read()

    def __call__(self, stage: str, done: int, total: int) -> None:
        os.pwrite(self._file.fileno(), f"{stage:60}".encode(), 0)

    def read(self) -> str:
        found = os.pread(self._file.fileno(), 60, 0).decode().strip()
        os.pwrite(self._file.fileno(), b" " * 60, 0)
        return found


CHANGES = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")


def count_changes(log: Path | None, kill_before: int | None) -> None:
    """From now on, counts changes to the file system in `log`, or kills this process before one of them."""
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            count += 1
            if count == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)
            if log:
                os.pwrite(handle, str(count).encode(), 0)

    handle = os.open(log, os.O_WRONLY | os.O_CREAT) if log else -1
    sys.addaudithook(hook)


def start(work: Callable[[], object], changes: Path | None = None, kill_before: int | None = None) -> int:
    """A forked child that does this and ends: 0, or 3 for an OutputError, or 1 for any other."""
    assert threading.active_count() == 1
    child = os.fork()
    if child:
        return child
    code = 0
    try:
        if changes or kill_before:
            count_changes(changes, kill_before)
        work()
    except OutputError as error:
        print(error, file=sys.stderr)
        code = 3
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def finish(child: int, limit: float = 120) -> int:
    """Waits for a child: its exit code, or minus the signal that ended it."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("an export hangs")


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def main(folder: Path, out: Path, kills: int, seed: int) -> None:
    small_calibration()
    log, stage, random_ = out / "work.log", Stage(out / "stage"), random.Random(seed)
    count_work(log)

    def export(name: str, options: dict, **more: object) -> Callable[[], object]:
        arguments = {**OPTIONS, **options, "output": out / name, "progress": stage, **more}
        return lambda: satchel.export(folder, DEVICES, **arguments)

    durations, changes = [], []
    for number, options in enumerate(PLAN):
        export(f"warm{number}", options)()  # loads compiled code into this process
        log.write_text("")
        begin = time.monotonic()
        assert finish(start(export(f"undisturbed{number}", options), out / "changes")) == 0
        durations.append(time.monotonic() - begin)
        changes.append(int((out / "changes").read_text()))
        say(kind="undisturbed", number=number, seconds=durations[-1], calls=len(log.read_text().splitlines()),
            changes=changes[-1], hashes=hashes(out / f"undisturbed{number}"))  # fmt: skip
    killed, attempt = 0, 0
    while killed < kills:
        number, name = attempt % len(PLAN), f"killed{attempt}"
        runs, seconds, stages = [], 0.0, []
        while True:
            log.write_text("")
            begin = time.monotonic()
            at_change = killed < kills and killed % 2
            before = random_.randint(1, changes[number]) if at_change else None
            child = start(export(name, PLAN[number]), kill_before=before)
            if killed < kills and not at_change:
                time.sleep(random_.uniform(0, durations[number]))
                os.kill(child, signal.SIGKILL)
            code = finish(child)
            seconds += time.monotonic() - begin
            runs.append([json.loads(line) for line in log.read_text().splitlines()])
            stages.append(stage.read())
            if code != -signal.SIGKILL:
                break
            killed += 1
        say(kind="killed", number=number, runs=runs, code=code, seconds=seconds, stages=stages[:-1],
            hashes=hashes(out / name))  # fmt: skip
        attempt += 1
    # Whichever is first, the other replaces its bundles; without being told to, it would rightly refuse.
    together = [start(export("together", asked, overwrite=True)) for asked in (PLAN[0], {"weights": "fp16"})]
    say(kind="together", codes=sorted(map(finish, together)), left=sorted(p.name for p in (out / "together").iterdir()))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
