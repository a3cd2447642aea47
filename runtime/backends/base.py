"""What every backend does, so that a session is the same for Core ML, ONNX and ExecuTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np


class Backend(Protocol):
    """A loaded model file with its cache. Its `__init__` takes (folder: Path, entry: ModelEntry, **options)."""

    position: int
    """Tokens in the cache."""

    def reset(self) -> None:
        """Empties the cache."""
        ...

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids to the cache by the fastest route; returns the logits after the last, float32 [vocab].

        Raises UsageError when the cache would be longer than the entry's context_length, or ids is empty.
        """
        ...

    def step(self, token: int) -> np.ndarray:
        """Appends one id by the decode route; returns float32 [vocab]."""
        ...
