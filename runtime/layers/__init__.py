"""The residual stream behind each layer, as a backend has it: where two devices part, by layer.

ONNX: `layers.onnx` is the model once more, with a further output for each layer; its weights are model.onnx's own.
Core ML: the interpreter sees every value of the program as it is, and the last op of each layer gives the stream
(runtime/mil/layers.py tells layers). On a device there is no such look into a program.
ExecuTorch: a program gives its outputs only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from satchel.runtime.bundle import Bundle
from satchel.runtime.errors import FormatError
from satchel.runtime.parity_file import LayerErrors, rounded

LOOKING = {"onnx": "satchel.runtime.layers.onnx", "coreml": "satchel.runtime.layers.coreml"}
"""Format -> module with `states`; imported when it is needed: an emulated machine has numpy and onnxruntime only."""
COMPARED = (("lowering", "weights"), ("quality", "reference"))


def layer_errors(bundle: Bundle, options: Mapping[str, Any]) -> LayerErrors | None:
    """How far each layer is off, where the bundle and its format tell.

    Args:
        bundle: opened.
        options: of the backend, as in the run that is looked into.

    Returns:
        None for a bundle without golden layers, and for an engine that lets nobody look inside.

    Raises:
        FormatError: the program has other layers than golden.
    """
    golden, entry = bundle.golden.layers, bundle.manifest.entry
    if (
        golden is None
        or entry.vision is not None
        or entry.format not in LOOKING
        or options.get("engine") == "framework"
    ):
        return None
    found = importlib.import_module(LOOKING[entry.format]).states(bundle, golden, options)
    wanted = golden.states["reference"].shape
    if found.shape != wanted:
        raise FormatError("the program has other layers than golden/", got=list(found.shape), wanted=list(wanted))
    named = {comparison: name for comparison, name in COMPARED if name in golden.states}
    errors = {comparison: tuple(map(rounded, golden.errors(name, found))) for comparison, name in named.items()}
    return LayerErrors(golden.rows, errors)
