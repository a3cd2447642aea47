"""Pictures that a prompt shows: prepared, put into its ids, and given to a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from satchel.runtime.backends.base import Backend
from satchel.runtime.backends.seeing import SeeingBackend
from satchel.runtime.errors import UsageError
from satchel.runtime.images import Prepared, prepare
from satchel.runtime.manifest import VisionEntry

Encode = Callable[[str], Sequence[int]]


class Pictures:
    """What a session does about pictures; of a model that does not see, it refuses them.

    Args:
        vision: of the bundle's entry.
        backend: that runs its model.
    """

    def __init__(self, vision: VisionEntry | None, backend: Backend) -> None:
        self._vision, self._backend = vision, backend
        self._shown = False

    @property
    def in_template(self) -> bool:
        """Whether the chat template places pictures."""
        return self._vision is not None and self._vision.tokens.in_template

    def prepare(self, pictures: Sequence[Any]) -> list[Prepared]:
        """Pictures as the encoder takes them.

        Raises:
            UsageError: the model does not see, or a picture cannot be read.
            MissingPackageError: Pillow is not installed.
        """
        if not pictures:
            return []
        return [prepare(picture, self._of_vision(pictures).images) for picture in pictures]

    def placed(self, prompt: str, pictures: Sequence[Prepared]) -> str:
        """A plain prompt with a placeholder for each picture."""
        return self._of_vision(pictures).tokens.placed(prompt, len(pictures)) if pictures else prompt

    def expand(self, ids: Sequence[int], pictures: Sequence[Prepared], encode: Encode) -> list[int]:
        """Ids with one placeholder for each picture -> as the model is given them."""
        if self._vision is None:
            return list(ids)
        return self._vision.tokens.expand(ids, pictures, encode)

    def show(self, pictures: Sequence[Prepared]) -> bool:
        """Gives the backend what it sees, which empties its cache; False where nothing changed."""
        if not pictures and not self._shown:
            return False
        show(self._backend, pictures)
        self._shown = bool(pictures)
        return True

    def _of_vision(self, pictures: Sequence[Any]) -> VisionEntry:
        if self._vision is None:
            raise UsageError("this model does not see", got=f"{len(pictures)} pictures", wanted="text alone")
        return self._vision


def show(backend: Backend, pictures: Sequence[Prepared]) -> None:
    """Shows pictures to a backend of a model that sees; none makes it forget those that it was shown."""
    seeing = cast(SeeingBackend, backend)
    rows = [seeing.see(tile[None])[0] for picture in pictures for tile in picture.pixels]  # one at a time: less memory
    seeing.show(np.concatenate(rows) if rows else np.zeros((0, 0), np.float32))
