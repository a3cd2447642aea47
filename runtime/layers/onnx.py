"""Layers of an ONNX bundle, by layers.onnx."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.backends.onnx import OnnxBackend
from satchel.runtime.bundle import Bundle
from satchel.runtime.errors import FormatError
from satchel.runtime.golden_layers import LAYERS_MODEL, GoldenLayers
from satchel.runtime.manifest import ModelEntry


def states(bundle: Bundle, golden: GoldenLayers, options: Mapping[str, Any]) -> np.ndarray:
    """The residual stream at the golden rows: float32 [layers, rows, channels]."""
    if not bundle.has(LAYERS_MODEL):
        raise FormatError("the bundle has golden layers but no model that gives them", wanted=LAYERS_MODEL)
    backend = _OnnxLayers(bundle.folder, bundle.manifest.entry, **options)
    backend.prefill(golden.ids(bundle.golden.prompts[0].sequence))
    return backend.layers(golden.layers)[:, list(golden.rows)]


class _OnnxLayers(OnnxBackend):
    """The backend over layers.onnx; its further outputs are kept."""

    def __init__(self, folder: Path, entry: ModelEntry, **options: Any) -> None:
        super().__init__(folder, replace(entry, path=LAYERS_MODEL), **options)
        self._names = [o.name for o in self._session.get_outputs() if o.name.startswith("layer.")]
        for name in self._names:
            self._binding.bind_output(name, "cpu")

    def layers(self, count: int) -> np.ndarray:
        """What the last call gave behind each layer: float32 [layers, ids, channels]."""
        given = self._binding.get_outputs()[-len(self._names) :]  # in the order in which they were bound, these last
        values = dict(zip(self._names, given, strict=True))
        missing = [f"layer.{i}" for i in range(count) if f"layer.{i}" not in values]
        if missing:
            raise FormatError(f"{LAYERS_MODEL} lacks layers", got=sorted(self._names), wanted=missing)
        return np.stack([values[f"layer.{i}"].numpy()[0] for i in range(count)])
