"""Turns a checkpoint into bundles: checkpoint, family, palettize, plan, decoder, format, bundle.

The package is callable: `satchel.export(...)` is `satchel.export.pipeline.export(...)`.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    """`satchel.export` is both the folder of the exporters and the call that runs them."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return importlib.import_module("satchel.export.pipeline").export(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
