"""What the measurement of curvature keeps on disk: activations between layers, and how far it has come.

A run that was killed goes on from there. Files are mapped or renamed into place, so that the end of a process at any
moment leaves what was finished before. A file that cannot be read counts for nothing, and what it held is measured
again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from satchel.export.families.base import DecoderConfig
from satchel.runtime.errors import OutputError


class Borders:
    """Activations before each layer and after the last, bfloat16 [layers + 1, sequences, length, hidden].

    Rounding them to 8 bits of precision changes the statistics by less than their sampling error.

    Args:
        folder: of the files, which exists.
        config: shape of the decoder.
        shape: (sequences, length) of the calibration text.

    Raises:
        OutputError: no space for them.
    """

    def __init__(self, folder: Path, config: DecoderConfig, shape: tuple[int, int]) -> None:
        self._counted = folder / "borders.json"
        self._gradient = folder / "gradient.safetensors"
        sizes = (config.layers + 1, *shape, config.hidden_size)
        path, elements = folder / "borders.bin", int(np.prod(sizes))
        size = elements * torch.bfloat16.itemsize
        if not path.exists() or path.stat().st_size != size:
            self._counted.unlink(missing_ok=True)
            _reserve(path, size)
        flat = torch.from_file(str(path), shared=True, size=elements, dtype=torch.bfloat16)
        self._values = flat.view(*sizes)

    def put(self, border: int, start: int, x: torch.Tensor) -> None:
        """Stores activations, [count, length, hidden], of the sequences from `start` on."""
        self._values[border, start : start + x.shape[0]] = x.detach().to(torch.bfloat16)

    def get(self, border: int, start: int, count: int) -> torch.Tensor:
        """Activations of `count` sequences from `start` on, float32 [count, length, hidden]."""
        return self._values[border, start : start + count].float()

    @property
    def written(self) -> int:
        """Borders that are complete."""
        with suppress(OSError, ValueError):
            return int(json.loads(self._counted.read_bytes()))
        return 0

    def finish(self, border: int) -> None:
        """Notes that a border is complete, and all before it."""
        aside = self._counted.with_suffix(".part")
        aside.write_text(json.dumps(border + 1))
        aside.replace(self._counted)

    def save_gradient(self, border: int, gradient: torch.Tensor) -> None:
        """Notes that all behind a border is done, and the gradient there, float32 [sequences, length, hidden]."""
        aside = self._gradient.with_suffix(".part")
        save_file({"gradient": gradient}, aside, metadata={"border": str(border)})
        aside.replace(self._gradient)

    def load_gradient(self) -> tuple[int, torch.Tensor] | None:
        """The last that save_gradient was given; None where it was not called."""
        with suppress(OSError, SafetensorError), safe_open(self._gradient, framework="pt") as file:
            return int(file.metadata()["border"]), file.get_tensor("gradient").clone()
        return None


def _reserve(path: Path, size: int) -> None:
    """Makes a file of zeros that have their place on the disk: a mapped file that finds none would end the process."""
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
    except OSError as error:
        hint = "make room on the disk of the output folder, or choose another --output"
        raise OutputError(f"no space for {size / 1e6:,.0f} MB of activations", got=error, hint=hint) from error
