"""Runs a model that sees with ExecuTorch: pictures, ids and the decoder are three methods of one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

import numpy as np

from satchel.runtime.backends.executorch import ExecutorchBackend, Native, foreign
from satchel.runtime.backends.seeing import Rows
from satchel.runtime.chunks import ROWS_IN
from satchel.runtime.manifest import ModelEntry
from satchel.runtime.pte import open_pte, unpack_coreml


class SeeingProgram(Protocol):
    """The three methods."""

    def __call__(self, given: np.ndarray, position: int) -> np.ndarray:
        """As executorch.Program has it, with rows."""
        ...

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels of a tile float32 [1, 3, height, width] -> features float32 [1, rows, hidden]."""
        ...

    def embed(self, ids: np.ndarray) -> np.ndarray:
        """Ids int64 [1, sequence] -> float32 [1, sequence, hidden]."""
        ...


class NativeParts(Native):
    """All three in ExecuTorch's runtime. Arguments as Native has them."""

    def __init__(self, folder: Path, entry: ModelEntry, threads: int | None) -> None:
        options = entry.options
        self._encoder, self._embedding = options.get("encoder", ""), options.get("embedding", "")
        names = [options.get("method", ""), self._encoder, self._embedding]
        super().__init__(folder, entry, threads, names)

    def see(self, pixels: np.ndarray) -> np.ndarray:  # noqa: D102
        return self.run(self._encoder, pixels)

    def embed(self, ids: np.ndarray) -> np.ndarray:  # noqa: D102
        return self.run(self._embedding, ids)


class UnpackedParts:
    """A file for Apple's delegate where there is no Core ML: programs by our interpreter, embedding natively."""

    def __init__(self, folder: Path, entry: ModelEntry, threads: int | None, precision: str) -> None:
        from satchel.runtime.backends.coreml_runners import Interpreter
        from satchel.runtime.mil import Watch

        options, package = entry.options, entry.options["package"]
        self._folder = tempfile.TemporaryDirectory()  # as long as this object: weights are read when they are needed
        self._decode: str = package["functions"]["decode"]
        assert entry.vision is not None
        self._names = options["method"], options["encoder"]
        runners = []
        with open_pte(folder / entry.path) as pte:
            for name, stateful in zip(self._names, (self._decode, None), strict=True):
                place = Path(self._folder.name, name)
                place.mkdir()
                unpacked = unpack_coreml(pte.payload(pte.method(name).delegates[0]), place)
                runners.append(Interpreter(unpacked, precision, stateful, None, Watch()))
        self._decoder, self._encoder = runners
        self._embedding = options["embedding"]
        self._native = Native(folder, entry, threads, [self._embedding])

    def __call__(self, given: np.ndarray, position: int) -> np.ndarray:
        """One row after the other."""
        for place in range(given.shape[1]):
            inputs = {ROWS_IN: given[:, place : place + 1], "position": np.array([position + place], np.int32)}
            logits = self._decoder(self._decode, inputs)["logits"]
        return np.array(logits, np.float32).reshape(-1)

    def see(self, pixels: np.ndarray) -> np.ndarray:  # noqa: D102
        (features,) = self._encoder("main", {"pixelValues": pixels}).values()
        return np.array(features, np.float32)

    def embed(self, ids: np.ndarray) -> np.ndarray:  # noqa: D102
        return self._native.run(self._embedding, ids)


class ExecutorchVisionBackend(ExecutorchBackend):
    """A SeeingBackend (seeing.py). Arguments and errors as ExecutorchBackend has them."""

    _call: SeeingProgram

    def __init__(self, folder: Path, entry: ModelEntry, threads: int | None = None, precision: str = "fp32") -> None:
        assert entry.vision is not None
        self._rows = Rows(entry.vision.tokens.id)
        super().__init__(folder, entry, threads, precision)

    def _open(self, folder: Path, entry: ModelEntry, threads: int | None, precision: str) -> SeeingProgram:
        if foreign(entry):
            return UnpackedParts(folder, entry, threads, precision)
        return NativeParts(folder, entry, threads)

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """Features of pictures: float32 [tiles, 3, height, width] -> float32 [tiles, rows, hidden]."""
        return np.concatenate([self._call.see(np.ascontiguousarray(tile[None])) for tile in pixels])

    def show(self, features: np.ndarray) -> None:
        """Empties the cache; the placeholders of what follows stand for these rows, float32 [rows, hidden]."""
        self._rows.show(features)
        self.reset()

    def reset(self) -> None:
        """Empties the cache; placeholders begin at the first row again."""
        super().reset()
        self._rows.rewind()

    def _run(self, ids: np.ndarray) -> np.ndarray:
        rows = self._rows.placed(ids[0], self._call.embed(ids)[0])
        logits = self._call(np.ascontiguousarray(rows[None]), self.position)
        self._rows.took()
        return logits
