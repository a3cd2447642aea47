"""A Hugging Face folder: config.json and safetensors, one file or shards with an index."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from satchel.export.checkpoint.base import Checkpoint, read_json
from satchel.runtime.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING")
LICENSE_LIMIT = 200_000  # characters; a larger file is no licence


@dataclass(frozen=True)
class _Entry:
    """Where a tensor lies, and what it is."""

    path: Path
    shape: tuple[int, ...]
    dtype: str


class SafetensorsCheckpoint(Checkpoint):
    """Tensors of a folder. One file is preferred to shards where both are there, as in transformers."""

    kind = "safetensors"

    def __init__(self, path: Path) -> None:
        """Opens the folder.

        Raises:
            CheckpointError: a file is missing, truncated, or says something else than the index.
        """
        self.path = path
        self.files = weight_files(path)
        self.config = read_json(path / "config.json")
        generation = path / "generation_config.json"
        self.generation_config = read_json(generation) if generation.is_file() else {}
        self._entries = _entries(self.files)
        if self.files[0].name != SINGLE:
            _check_index(_weight_map(path), self._entries)

    def names(self) -> list[str]:  # noqa: D102
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:  # noqa: D102
        return self._entries[name].shape

    def _read(self, name: str, rows: slice) -> np.ndarray:
        entry = self._entries[name]
        if entry.dtype not in FLOATS:
            raise CheckpointError(
                f"'{name}' is not stored as floating-point numbers",
                got=entry.dtype,
                wanted=" or ".join(FLOATS),
                hint="the checkpoint is quantized; pass the original",
            )
        mapped = entry.dtype == "BF16"  # safetensors copies for numpy, and gives torch what is mapped
        try:  # opened for each tensor: a file that stays mapped keeps all that was read of it in memory
            with safe_open(entry.path, framework="pt" if mapped else "numpy") as file:
                piece = file.get_slice(name)
                # The slice is clipped here, since safetensors refuses one that goes beyond the end.
                values = piece[slice(*rows.indices(entry.shape[0]))] if entry.shape else piece[...]
                return _halves(values) if mapped else np.asarray(values)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"'{name}' cannot be read from {entry.path.name}", got=error) from None

    def _about(self) -> tuple[str, str, str]:
        card = self.path / "README.md"
        head = card.read_text("utf-8", errors="replace")[:4000] if card.is_file() else ""
        found = re.match(r"---\n(?:.*\n)*?license:[ \t]*[\"']?([\w.+-]+)", head)
        return "", found.group(1) if found else "", _license_file(self.path)


def _halves(values: Any) -> np.ndarray:
    """A bfloat16 tensor of torch's as numpy's, of the same memory."""
    import torch

    return np.asarray(values.view(torch.int16).numpy().view(ml_dtypes.bfloat16))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a folder that make up the model; [] if there are none.

    Raises:
        CheckpointError: the index is unreadable, or points to a missing file or out of the folder.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return [_shard(folder, name) for name in sorted(set(_weight_map(folder).values()))]
    return []


def _weight_map(folder: Path) -> dict[str, str]:
    found = read_json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(v, str) for v in found.values()):
        raise CheckpointError(f"{INDEX} maps no tensors to files", got=type(found).__name__, wanted="weight_map")
    return found


def _shard(folder: Path, name: str) -> Path:
    if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
        raise CheckpointError(f"{INDEX} points out of the folder", got=name, wanted="names of .safetensors beside it")
    if not (folder / name).is_file():
        raise CheckpointError("a shard is missing", got=folder, wanted=name, hint="finish the download")
    return folder / name


def _entries(files: list[Path]) -> dict[str, _Entry]:
    """Tensor name -> where it lies; headers only."""
    entries: dict[str, _Entry] = {}
    for path in files:
        try:
            with safe_open(path, framework="numpy") as file:
                pieces = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
                found = {n: _Entry(path, tuple(p.get_shape()), p.get_dtype()) for n, p in pieces.items()}
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"{path.name} is not a whole safetensors file", got=error, hint="download it again"
            ) from None
        if twice := sorted(entries.keys() & found.keys()):
            raise CheckpointError("tensors are stored twice", got=twice[:5], wanted="each in one shard")
        entries |= found
    return entries


def _check_index(weight_map: dict[str, str], entries: dict[str, _Entry]) -> None:
    wrong = sorted(n for n, file in weight_map.items() if n not in entries or entries[n].path.name != file)
    extra = sorted(entries.keys() - weight_map.keys())
    if wrong or extra:
        raise CheckpointError(
            "the shards do not hold what their index says",
            got={"not where the index says": wrong[:5], "not in the index": extra[:5]},
            wanted=f"the tensors of {INDEX}",
            hint="download the checkpoint again",
        )


def _license_file(folder: Path) -> str:
    for name in LICENSE_FILES:
        if (folder / name).is_file():
            return (folder / name).read_text("utf-8", errors="replace")[:LICENSE_LIMIT]
    return ""
