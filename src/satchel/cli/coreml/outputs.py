"""What `satchel coreml run` makes of a model's outputs: an .npz file, and a line of figures each."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from satchel.cli.coreml.inputs import STEPS
from satchel.runtime.errors import OutputError

EPOCH = (1980, 1, 1, 0, 0, 0)  # the zip format's first day: the same arrays give the same bytes
REGULAR_FILE = 0o100644 << 16
UNIX = 3


def to_arrays(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Outputs as arrays: a picture as its pixels without alpha, a dict as NAME@keys and NAME@values."""
    arrays = {}
    for name, value in outputs.items():
        if isinstance(value, dict):
            arrays[f"{name}@keys"] = np.array(list(value))
            arrays[f"{name}@values"] = np.array(list(value.values()), dtype=np.float64)
        elif getattr(value, "mode", None) == "RGBA":
            arrays[name] = np.asarray(value)[..., :3]
        else:
            array = np.asarray(value)
            arrays[name] = array.astype(str) if array.dtype.kind == "O" else array
    return arrays


def stacked(calls: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of all steps: of one step as they are; of several NAME@steps, or NAME@step0... where shapes differ."""
    if len(calls) == 1:
        return dict(calls[0])
    found = {}
    for name in calls[0]:
        values = [call[name] for call in calls]
        if len({v.shape for v in values}) == 1:
            found[name + STEPS] = np.stack(values)
        else:
            found |= {f"{name}@step{i}": v for i, v in enumerate(values)}
    return found


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz file aside, then renames it. Equal arrays give equal bytes. Raises OutputError."""
    with _aside(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            info.create_system, info.external_attr = UNIX, REGULAR_FILE
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def write_page(path: Path, text: str) -> None:
    """Writes an HTML document aside, then renames it. Raises OutputError."""
    with _aside(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when all is written; nothing is left of it where that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written", got=error, hint="is its folder there, and writable?") from error
    finally:
        partial.unlink(missing_ok=True)


def figures(name: str, array: np.ndarray) -> dict[str, Any]:
    """Shape, type, least, mean and greatest value (of those that are numbers) and the count of NaN and infinity."""
    found: dict[str, Any] = {"name": name, "shape": list(array.shape), "dtype": array.dtype.name}
    if array.dtype.kind not in "fiub":
        return found
    values = array.astype(np.float64).reshape(-1)
    finite = values[np.isfinite(values)]
    if finite.size:
        found |= {"min": float(finite.min()), "mean": float(finite.mean()), "max": float(finite.max())}
    return found | {"nan": int(np.isnan(values).sum()), "infinite": int(np.isinf(values).sum())}


def in_words(name: str, value: Any, most: int = 5) -> str | None:
    """A label or the likeliest of a dict of probabilities as text; None for an array or a picture."""
    if isinstance(value, dict):
        best = sorted(value.items(), key=lambda item: -item[1])[:most]
        return f"{name}: " + ", ".join(f"{key} {probability:.4g}" for key, probability in best)
    return f"{name}: {value}" if isinstance(value, int | float | str) else None
