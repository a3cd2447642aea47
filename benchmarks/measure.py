"""Seconds, CPU seconds and peak memory of a command, as the operating system counts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
