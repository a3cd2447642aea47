"""The command `satchel`."""

from __future__ import annotations

from satchel.cli.app import app, main

__all__ = ["app", "main"]
