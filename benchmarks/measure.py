"""Seconds, CPU seconds and peak memory of a command, as the operating system counts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

KILOBYTES = 1024 if sys.platform != "darwin" else 1  # ru_maxrss is in bytes on macOS


@dataclass(frozen=True)
class Cost:
    """What one command took."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    output: str


def measure(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Cost:
    """Runs a command to its end; its standard error goes to `log`. Raises CalledProcessError if it fails.

    The caller must be small: a child's peak starts at its parent's.
    """
    start = time.perf_counter()
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **(environment or {})}
        )
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code:
        raise subprocess.CalledProcessError(code, command, output, log.read_text()[-2000:])
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - start, cpu, usage.ru_maxrss * KILOBYTES / 1e6, output)


def measure_call(call: Callable[[], object], log: Path) -> Cost:
    """Runs a function in a fork, as `measure` runs a command: what is imported already is not imported again.

    Its peak begins at this process's, and its standard output is the Cost's. This process must have no threads.
    """
    start = time.perf_counter()
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _called(call, writing, log)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, getattr(call, "__name__", str(call)), output, log.read_text()[-2000:])
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(time.perf_counter() - start, cpu, usage.ru_maxrss * KILOBYTES / 1e6, output)


def _called(call: Callable[[], object], writing: int, log: Path) -> NoReturn:
    """The fork's part."""
    os.dup2(writing, 1)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), 2)
    sys.stderr = os.fdopen(2, "w", closefd=False)
    try:
        call()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
