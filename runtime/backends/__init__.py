"""What runs each format: a literal table, resolved when a backend is asked for, so none loads another's library."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from satchel.runtime.backends.base import Backend
from satchel.runtime.errors import FormatError, MissingPackageError, UsageError
from satchel.runtime.manifest import ModelEntry

BACKENDS: dict[str, str] = {
    "coreml": "satchel.runtime.backends.coreml:CoremlBackend",
    "onnx": "satchel.runtime.backends.onnx:OnnxBackend",
    "executorch": "satchel.runtime.backends.executorch:ExecutorchBackend",
}

SEEING: dict[str, str] = {
    "coreml": "satchel.runtime.backends.coreml_vision:CoremlVisionBackend",
    "onnx": "satchel.runtime.backends.onnx_vision:OnnxVisionBackend",
    "executorch": "satchel.runtime.backends.executorch_vision:ExecutorchVisionBackend",
}
"""The same of models that see."""

_INSTALL = {"coreml": "pip install satchel", "onnx": "pip install 'satchel[onnx]'"}


def load_backend(folder: Path, entry: ModelEntry, **options: Any) -> Backend:
    """Loads a model file.

    Args:
        folder: the bundle.
        entry: how the model is called.
        options: of the backend of this format.

    Raises:
        FormatError: no such format, or a file that cannot be executed.
        UsageError: an option that this backend has not.
        MissingPackageError: the library of this format is not installed.
    """
    known = SEEING if entry.vision else BACKENDS
    if entry.format not in known:
        what = "no backend runs models that see in this format" if entry.vision else "no backend runs this format"
        raise FormatError(what, got=entry.format, wanted=sorted(known))
    module, name = known[entry.format].split(":")
    try:
        backend = getattr(importlib.import_module(module), name)
    except ImportError as error:
        hint = _INSTALL.get(entry.format, f"pip install {entry.format}")
        raise MissingPackageError(f"a package to run {entry.format} is missing", got=error, hint=hint) from error
    parameters = list(inspect.signature(backend).parameters)[2:]
    if unknown := sorted(set(options) - set(parameters)):
        raise UsageError(f"the {entry.format} backend has no such option", got=unknown, wanted=parameters)
    loaded: Backend = backend(folder, entry, **options)
    return loaded
