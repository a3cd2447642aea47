"""Core ML programs on any machine: `satchel.coreml.load("Model.mlpackage").predict({"x": array})`.

Needs numpy and protobuf; Pillow where images go in or out as such.
"""

from __future__ import annotations

from satchel.runtime.coreml.features import Feature, Signature
from satchel.runtime.coreml.model import Model, ModelState, load
from satchel.runtime.mil import OverflowReport, Watch

__all__ = ["Feature", "Model", "ModelState", "OverflowReport", "Signature", "Watch", "load"]
