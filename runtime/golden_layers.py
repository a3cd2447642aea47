"""The residual stream of the reference behind each layer, at a few positions. See FORMAT.md, "golden/"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError

SCHEMA_VERSION = 1
STRUCTURE = "layers.json"
MOST_ROWS = 8
LAYERS_MODEL = "layers.onnx"
"""Of an ONNX bundle: the model with an output `layer.N` for each layer besides its own."""


@dataclass(frozen=True)
class GoldenLayers:
    """What lies behind each layer.

    Attributes:
        rows: golden rows, rising, all of the first prompt.
        states: set -> float32 [layers, rows, channels].
    """

    rows: tuple[int, ...]
    states: Mapping[str, np.ndarray]

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return int(self.states["reference"].shape[0])

    def ids(self, sequence: Sequence[int]) -> Sequence[int]:
        """The first prompt's sequence as far as it is needed."""
        return sequence[: self.rows[-1] + 1]

    def errors(self, name: str, found: np.ndarray) -> list[float]:
        """For each layer the mean over rows of |x - golden| / |golden|, of `found` float32 [layers, rows, channels]."""
        golden, x = self.states[name].astype(np.float64), found.astype(np.float64)
        size = np.maximum(np.linalg.norm(golden, axis=-1), 1e-30)
        with np.errstate(invalid="ignore", over="ignore"):
            return [float(e) for e in (np.linalg.norm(x - golden, axis=-1) / size).mean(-1)]

    def write(self, folder: Path) -> None:
        """Writes layers.json and the numbers into `folder`."""
        listed = {name: {"file": _file(name), "shape": list(v.shape)} for name, v in self.states.items()}
        structure = {"schema_version": SCHEMA_VERSION, "rows": list(self.rows), "sets": listed}
        for name, values in self.states.items():
            (folder / _file(name)).write_bytes(np.ascontiguousarray(values, "<f4").tobytes())
        (folder / STRUCTURE).write_bytes(strict_json.canonical(structure))

    @classmethod
    def read(cls, folder: Path) -> GoldenLayers | None:
        """Reads what `write` wrote; None where there is none.

        Raises:
            BundleError: a file is missing, of the wrong size, or does not fit the others.
        """
        path = folder / STRUCTURE
        if not path.is_file():
            return None
        read = strict_json.decode(_Structure, strict_json.parse(path.read_bytes(), STRUCTURE), STRUCTURE)
        if read.schema_version != SCHEMA_VERSION:
            raise BundleError(f"{STRUCTURE} is of an unknown schema", got=read.schema_version, wanted=SCHEMA_VERSION)
        if not read.rows or list(read.rows) != sorted(set(read.rows)) or read.rows[0] < 0 or len(read.rows) > 4096:
            raise BundleError(f"{STRUCTURE} has impossible rows", got=read.rows)
        states = {name: _states(folder, name, entry, len(read.rows)) for name, entry in read.sets.items()}
        if "reference" not in states or len({v.shape for v in states.values()}) != 1:
            raise BundleError(f"{STRUCTURE} lacks the reference's layers", got=sorted(states))
        return cls(read.rows, states)


@dataclass(frozen=True)
class _Array:
    """Where the numbers of a set lie."""

    file: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Structure:
    """layers.json."""

    schema_version: int
    rows: tuple[int, ...]
    sets: dict[str, _Array]


def _file(name: str) -> str:
    return f"{name}.layers.f32"


def _states(folder: Path, name: str, entry: _Array, rows: int) -> np.ndarray:
    if name not in ("reference", "weights") or entry.file != _file(name):
        raise BundleError(f"{STRUCTURE} names an unexpected array", got=entry)
    if len(entry.shape) != 3 or entry.shape[1] != rows or min(entry.shape) < 1:
        raise BundleError(f"{STRUCTURE} has an impossible shape", got=entry.shape, wanted=f"layers, {rows}, channels")
    path, wanted = folder / entry.file, 4 * int(np.prod(entry.shape, dtype=object))
    size = path.stat().st_size if path.is_file() else None
    if size != wanted:
        raise BundleError(f"golden/{path.name} is missing or of the wrong size", got=size, wanted=wanted)
    values = np.fromfile(path, "<f4").astype(np.float32).reshape(entry.shape)
    if not np.isfinite(values).all():
        raise BundleError(f"golden/{path.name} holds NaN or infinity", hint="export the bundle again")
    return values
