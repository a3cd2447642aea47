"""What every kind of checkpoint can do. Weights are read from mapped files, a tensor or some of its rows at a time."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satchel.export.checkpoint.bfloat16 import widen
from satchel.runtime.errors import CheckpointError


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says about itself.

    Attributes:
        author: "" where it says nothing.
        license: SPDX identifier or name; "unknown" where it says nothing.
        license_text: in full, "" where it is not known.
        source: kind, file and sha256 of what was read.
    """

    author: str
    license: str
    license_text: str
    source: str


class Checkpoint(ABC):
    """Named tensors and a configuration.

    Attributes:
        kind: which of the file formats.
        path: the folder or file that was opened.
        files: those that hold weights, sorted.
        config: as Hugging Face's config.json; made from the metadata of a GGUF file. A structural option of a GGUF
            file that has no counterpart there appears under its GGUF key, so that a family refuses it by name.
        generation_config: as generation_config.json, {} if there is none.
    """

    kind: Literal["safetensors", "gguf"]
    path: Path
    files: list[Path]
    config: dict[str, Any]
    generation_config: dict[str, Any]

    @abstractmethod
    def names(self) -> list[str]:
        """Names of the tensors as the files have them, sorted."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, rows first; KeyError if there is none of this name."""

    @abstractmethod
    def _read(self, name: str, rows: slice) -> np.ndarray:
        """float32, or a type that widens to it; not checked."""

    @abstractmethod
    def _about(self) -> tuple[str, str, str]:
        """(author, license, license text) as the checkpoint says, "" for what it does not."""

    def read(self, name: str, rows: slice = slice(None), out: np.ndarray | None = None) -> np.ndarray:
        """Values of a tensor, or of some of its rows, float32, contiguous and writable.

        Args:
            name: as the files have it.
            rows: of it.
            out: float32 of their shape, contiguous, to read into; it is returned. New memory costs as much again.

        Raises:
            CheckpointError: a value is NaN or infinite, or the file cannot be read.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # looked for below
            values, finite = _widened(self._read(name, rows), out)
        if not finite:
            bad = np.unravel_index(int(np.argmin(np.isfinite(values))), values.shape)
            raise CheckpointError(
                f"the weights of '{name}' hold NaN or infinity",
                got=f"{values[bad]} at {tuple(int(i) for i in bad)}, {int((~np.isfinite(values)).sum())} in all",
                wanted="finite numbers",
                hint="download the checkpoint again, or look into how it was saved",
            )
        return values

    @cached_property
    def info(self) -> CheckpointInfo:
        """Author, licence, and origin; hashes the weight files, once."""
        author, name, text = self._about()
        return CheckpointInfo(author, name or "unknown", text or license_text(name), self._source())

    def _source(self) -> str:
        digests = [(file_sha256(p), p.name) for p in self.files]
        if len(digests) == 1:
            return f"{self.kind}, {digests[0][1]}, sha256 {digests[0][0]}"
        listing = "".join(f"{digest}  {name}\n" for digest, name in digests).encode()
        whole = hashlib.sha256(listing).hexdigest()
        return f"{self.kind}, {len(digests)} files, sha256 of their sha256sum listing {whole}"


def _widened(values: np.ndarray, out: np.ndarray | None) -> tuple[np.ndarray, bool]:
    """(as float32, contiguous and writable, in `out` where it is given; whether all are finite)."""
    if values.dtype.name == "bfloat16":
        wide = np.empty(values.shape, np.float32) if out is None else out
        return wide, widen(np.ascontiguousarray(values), wide)
    if out is None:
        out = np.array(values, np.float32, copy=None if values.flags.writeable else True, order="C")
    else:
        out[...] = values
    return out, bool(np.isfinite(out).all())


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def license_text(name: str) -> str:
    """The text of a licence that is the same for everyone, by its SPDX identifier; "" for others."""
    file = Path(__file__).parent.parent / "licenses" / f"{name.lower()}.txt"
    return file.read_text("utf-8") if name and file.name == Path(file.name).name and file.is_file() else ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: it is missing, is not UTF-8 JSON, or is not an object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint has no {path.name}", got=path.parent, wanted=path.name) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read", got=error, wanted="UTF-8 JSON") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} is not an object", got=type(value).__name__, wanted="a JSON object")
    return value
