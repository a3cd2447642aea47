"""Opens a bundle, whatever it holds, and loads its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from satchel.runtime.bundle import read_manifest
from satchel.runtime.module.session import load_module
from satchel.runtime.session import load as load_language_model


def load(path: str | Path, *, verify: bool = True, **options: Any) -> Any:
    """Opens a bundle and loads its model.

    Args:
        path: the bundle's folder.
        verify: hash every file first; False for later starts, which checks names and sizes only.
        options: of the backend, such as `threads` for ONNX or `precision` for Core ML's interpreter.

    Returns:
        A Session (runtime/session.py) for a language model, a ModuleSession (runtime/module/session.py) for a module.

    Raises:
        BundleError: the bundle is incomplete or altered.
        TokenizerError: its tokenizer cannot be read or does not fit.
        MissingPackageError, FormatError: the model cannot be executed here.
    """
    if "module" in read_manifest(Path(path)):
        return load_module(path, verify=verify, **options)
    return load_language_model(path, verify=verify, **options)
