"""Core ML programs on any machine: `satchel.coreml.load("Model.mlpackage").predict({"x": array})`."""

from __future__ import annotations
