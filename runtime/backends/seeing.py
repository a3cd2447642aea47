"""What a backend of a model that sees does besides: features of pictures, and their places among the ids."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from satchel.runtime.backends.base import Backend


class SeeingBackend(Backend, Protocol):
    """A Backend whose ids may be placeholders that stand for rows of features."""

    def see(self, pixels: np.ndarray) -> np.ndarray:
        """Features of pictures: float32 [tiles, 3, height, width] -> float32 [tiles, rows, hidden]."""
        ...

    def show(self, features: np.ndarray) -> None:
        """Empties the cache; the placeholders of what follows stand for these rows, float32 [rows, hidden].

        `reset` begins at the first row again. A placeholder beyond the last row is an id like any other.
        """
        ...


class Rows:
    """Rows of features, given to placeholders one after the other.

    Args:
        placeholder: its id.
    """

    def __init__(self, placeholder: int) -> None:
        self._placeholder = placeholder
        self._features = np.zeros((0, 0), np.float32)
        self._next = self._then = 0

    def show(self, features: np.ndarray) -> None:
        """Exchanges the rows, and begins at the first."""
        self._features = features
        self.rewind()

    def rewind(self) -> None:
        """Begins at the first row again."""
        self._next = self._then = 0

    def placed(self, ids: np.ndarray, embedded: np.ndarray) -> np.ndarray:
        """Rows of the embedding [ids, hidden], those of placeholders exchanged; `took` makes it count."""
        places = np.flatnonzero(ids == self._placeholder)[: len(self._features) - self._next]
        self._then = self._next + len(places)
        if len(places):
            embedded = embedded.copy()
            embedded[places] = self._features[self._next : self._then]
        return embedded

    def took(self) -> None:
        """The rows of the last call are in the cache."""
        self._next = self._then
