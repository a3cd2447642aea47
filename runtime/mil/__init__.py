"""Reads and runs Core ML's ML Programs on any machine, with numpy alone. `load(path).run({...})`."""

from __future__ import annotations

from satchel.runtime.mil.interpreter import State, Watch
from satchel.runtime.mil.precision import OverflowReport
from satchel.runtime.mil.program import Program, load

__all__ = ["OverflowReport", "Program", "State", "Watch", "load"]
