"""Satchel: small language models as 4-bit bundles for Core ML, ONNX and ExecuTorch.

    bundles = satchel.export("smollm2", ["iphone-15-pro", "pixel-9"], output="bundles")
    with satchel.load(bundles[0].folder) as session:
        print("".join(session.generate("The capital of France is", max_new_tokens=16)))
    satchel.export_module(module, (example,), name="mine", devices="iphone-15-pro")

`export` needs the extra `satchel[export]`; `load` needs no torch for Core ML and ONNX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satchel.export.module.api import export_module as export_module
    from satchel.export.pipeline import export as export
    from satchel.runtime.load import load as load

__version__ = "0.1.0"
__all__ = ["__version__", "export", "export_module", "load"]


def __getattr__(name: str) -> Any:
    """Imports on first use, so that `import satchel` costs nothing and never needs torch."""
    if name == "load":
        return importlib.import_module("satchel.runtime.load").load
    if name == "export_module":
        return importlib.import_module("satchel.export.module.api").export_module
    if name == "export":
        return importlib.import_module("satchel.export")
    raise AttributeError(f"module 'satchel' has no attribute '{name}'")
