"""The golden picture of a model that sees: what the reference makes of it, step by step. See FORMAT.md, "golden/".

Of the pixels, and of the rows of features, only some are kept, evenly spread: whatever is wrong shows in them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError

SCHEMA_VERSION = 1
STRUCTURE, PICTURE, PIXELS = "vision.json", "picture.png", "picture.pixels.f32"
MOST_PIXELS, MOST_ROWS = 4096, 32


def spread(total: int, most: int) -> np.ndarray:
    """`most` of the numbers 0 .. total - 1, evenly spread; all where there are no more. int64."""
    count = min(total, most)
    return np.arange(count, dtype=np.int64) * total // count


@dataclass(frozen=True)
class GoldenVision:
    """What is known of the golden picture.

    Attributes:
        png: its file.
        shape: of its pixels: tiles, channels, height, width.
        pixels: float32, those at spread(number of pixels, MOST_PIXELS) in their flat order.
        features: set -> float32 [rows, hidden], those at spread(tiles * rows of a tile, MOST_ROWS).
    """

    png: bytes
    shape: tuple[int, ...]
    pixels: np.ndarray
    features: Mapping[str, np.ndarray]

    def write(self, folder: Path) -> None:
        """Writes vision.json, the picture and the numbers into `folder`."""
        files = {name: f"{name}.features.f32" for name in self.features}
        listed = {name: {"file": files[name], "shape": list(v.shape)} for name, v in self.features.items()}
        structure = {"schema_version": SCHEMA_VERSION, "picture": PICTURE, "shape": list(self.shape),
                     "pixels": PIXELS, "features": listed}  # fmt: skip
        (folder / PICTURE).write_bytes(self.png)
        (folder / PIXELS).write_bytes(np.ascontiguousarray(self.pixels, "<f4").tobytes())
        for name, values in self.features.items():
            (folder / files[name]).write_bytes(np.ascontiguousarray(values, "<f4").tobytes())
        (folder / STRUCTURE).write_bytes(strict_json.canonical(structure))

    @classmethod
    def read(cls, folder: Path) -> GoldenVision | None:
        """Reads what `write` wrote; None where there is none.

        Raises:
            BundleError: a file is missing, of the wrong size, or does not fit the others.
        """
        path = folder / STRUCTURE
        if not path.is_file():
            return None
        read = strict_json.decode(_Structure, strict_json.parse(path.read_bytes(), STRUCTURE), STRUCTURE)
        if read.schema_version != SCHEMA_VERSION or (read.picture, read.pixels) != (PICTURE, PIXELS):
            raise BundleError(f"{STRUCTURE} is of an unknown schema", got=read.schema_version, wanted=SCHEMA_VERSION)
        if len(read.shape) != 4 or min(read.shape) < 1 or max(read.shape) > 1 << 20:
            raise BundleError(f"{STRUCTURE} has an impossible shape", got=read.shape)
        count = min(int(np.prod(read.shape, dtype=object)), MOST_PIXELS)
        features = {}
        for name, entry in read.features.items():
            if entry.file != f"{name}.features.f32" or "/" in name or len(entry.shape) != 2 or min(entry.shape) < 1:
                raise BundleError(f"{STRUCTURE} names an unexpected array", got=entry)
            features[name] = _floats(folder / entry.file, entry.shape)
        if "reference" not in features or len({v.shape for v in features.values()}) != 1:
            raise BundleError(f"{STRUCTURE} lacks the reference's features", got=sorted(features))
        try:
            png = (folder / PICTURE).read_bytes()
        except OSError as error:
            raise BundleError("the golden picture is missing", got=error, hint="export the bundle again") from None
        return cls(png, read.shape, _floats(folder / PIXELS, (count,)), features)


@dataclass(frozen=True)
class _Features:
    """Where features of a set lie."""

    file: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Structure:
    """vision.json."""

    schema_version: int
    picture: str
    shape: tuple[int, ...]
    pixels: str
    features: dict[str, _Features]


def _floats(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    wanted = 4 * int(np.prod(shape, dtype=object))
    size = path.stat().st_size if path.is_file() else None
    if size != wanted:
        raise BundleError(f"golden/{path.name} is missing or of the wrong size", got=size, wanted=wanted)
    values = np.fromfile(path, "<f4").astype(np.float32).reshape(shape)
    if not np.isfinite(values).all():
        raise BundleError(f"golden/{path.name} holds NaN or infinity", hint="export the bundle again")
    return values
