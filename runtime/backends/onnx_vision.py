"""Runs a model that sees with onnxruntime: pictures, ids and the decoder are three sessions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from satchel.runtime.backends.onnx import OnnxBackend
from satchel.runtime.backends.seeing import Rows
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import ModelEntry, PartEntry, VisionEntry


class OnnxVisionBackend(OnnxBackend):
    """A SeeingBackend (seeing.py). Arguments and errors as OnnxBackend has them."""

    def __init__(self, folder: Path, entry: ModelEntry, threads: int | None = None, exact: bool = False) -> None:
        assert entry.vision is not None
        super().__init__(folder, entry, threads, exact)
        self._vision: VisionEntry = entry.vision
        self._parts = {
            part.path: self.open_session(folder / part.path, threads, exact)
            for part in (entry.vision.encoder, entry.vision.embedding)
        }
        self._rows = Rows(entry.vision.tokens.id)

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """Features of pictures: float32 [tiles, 3, height, width] -> float32 [tiles, rows, hidden]."""
        return self._part(self._vision.encoder, pixels)

    def show(self, features: np.ndarray) -> None:
        """Empties the cache; the placeholders of what follows stand for these rows, float32 [rows, hidden]."""
        self._rows.show(features)
        self.reset()

    def reset(self) -> None:
        """Empties the cache; placeholders begin at the first row again."""
        super().reset()
        self._rows.rewind()

    def _part(self, part: PartEntry, value: np.ndarray) -> np.ndarray:
        try:
            (found,) = self._parts[part.path].run(None, {part.inputs[0].name: value})
        except Exception as error:  # onnxruntime has no common base for its exceptions
            raise FormatError(f"onnxruntime failed to run {part.path}", got=error) from error
        return np.asarray(found)

    def _run(self, ids: np.ndarray) -> np.ndarray:
        total = self._check(ids)
        rows = self._rows.placed(ids[0], self._part(self._vision.embedding, ids)[0])
        logits = self._call("inputs_embeds", np.ascontiguousarray(rows[None]), total)
        self._rows.took()
        return logits
