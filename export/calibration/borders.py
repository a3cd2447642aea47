"""What the measurement of curvature keeps on disk: activations between layers, and how far it has come.

A run that was killed goes on from there. Files are mapped or renamed into place, so that the end of a process at any
moment leaves what was finished before.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from satchel.export.families.base import DecoderConfig


class Borders:
    """Activations before each layer and after the last, bfloat16 [layers + 1, sequences, length, hidden].

    Rounding them to 8 bits of precision changes the statistics by less than their sampling error.

    Args:
        folder: of the files, which exists.
        config: shape of the decoder.
        shape: (sequences, length) of the calibration text.
    """

    def __init__(self, folder: Path, config: DecoderConfig, shape: tuple[int, int]) -> None:
        self._folder = folder
        sizes = (config.layers + 1, *shape, config.hidden_size)
        flat = torch.from_file(str(folder / "borders.bin"), shared=True, size=int(np.prod(sizes)), dtype=torch.bfloat16)
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
        path = self._folder / "borders.json"
        return int(json.loads(path.read_text())) if path.exists() else 0

    def finish(self, border: int) -> None:
        """Notes that a border is complete, and all before it."""
        aside = self._folder / "borders.json.part"
        aside.write_text(json.dumps(border + 1))
        aside.replace(self._folder / "borders.json")

    def save_gradient(self, border: int, gradient: torch.Tensor) -> None:
        """Notes that all behind a border is done, and the gradient there, float32 [sequences, length, hidden]."""
        aside = self._folder / "gradient.part"
        save_file({"gradient": gradient}, aside, metadata={"border": str(border)})
        aside.replace(self._folder / "gradient.safetensors")

    def load_gradient(self) -> tuple[int, torch.Tensor] | None:
        """The last that save_gradient was given; None where it was not called."""
        path = self._folder / "gradient.safetensors"
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            return int(file.metadata()["border"]), file.get_tensor("gradient").clone()
