"""Runs a Core ML bundle of a model that sees: features take the places of placeholders before the first layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from satchel.runtime.backends.coreml import CoremlBackend, Engine
from satchel.runtime.backends.coreml_runners import Framework, Interpreter, Runner
from satchel.runtime.backends.seeing import Rows
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import ModelEntry

FUNCTION = "main"
"""Of the encoder's package."""


class CoremlVisionBackend(CoremlBackend):
    """A SeeingBackend (seeing.py). Arguments and errors as CoremlBackend has them; max_memory is of the decoder."""

    def __init__(
        self,
        folder: Path,
        entry: ModelEntry,
        precision: str = "fp32",
        engine: Engine = "auto",
        max_memory: int | None = None,
    ) -> None:
        assert entry.vision is not None
        self._rows = Rows(entry.vision.tokens.id)
        super().__init__(folder, entry, precision, engine, max_memory)
        self._part = entry.vision.encoder
        path = folder / self._part.path
        self._encoder: Runner
        if self._watch is None:
            self._encoder = Framework(path, {FUNCTION: False}, str(entry.options.get("compute", "all")))
        else:
            self._encoder = Interpreter(path, precision, None, max_memory, self._watch)

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """Features of pictures: float32 [tiles, 3, height, width] -> float32 [tiles, rows, hidden]."""
        name, result = self._part.inputs[0].name, self._part.outputs[0].name
        rows = []
        for tile in pixels:
            found = self._encoder(FUNCTION, {name: tile[None]})
            if result not in found:
                raise FormatError("outputs of the encoder", got=sorted(found), wanted=result)
            rows.append(np.asarray(found[result], np.float32)[0])
        return np.stack(rows)

    def show(self, features: np.ndarray) -> None:
        """Empties the cache; the placeholders of what follows stand for these rows, float32 [rows, hidden]."""
        self._rows.show(features)
        self.reset()

    def reset(self) -> None:
        """Empties the cache; placeholders begin at the first row again."""
        super().reset()
        self._rows.rewind()

    def _embedded(self, hidden: np.ndarray, tokens: list[int]) -> np.ndarray:
        """[1, S, channels], or [1, channels, 1, S], with the rows of placeholders exchanged; padding stays."""
        first = self._entry.options.get("layout") == "channels_first"
        rows = np.array(hidden[0, :, 0].T if first else hidden[0])
        rows[: len(tokens)] = self._rows.placed(np.array(tokens), rows[: len(tokens)])
        return rows.T[None, :, None] if first else rows[None]

    def _call(self, tokens: list[int], count: int) -> np.ndarray:
        logits = super()._call(tokens, count)
        self._rows.took()
        return logits
