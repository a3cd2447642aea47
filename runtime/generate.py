"""Ids -> text as they come: whole characters only, and nothing beyond a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

BROKEN = "\N{REPLACEMENT CHARACTER}"


class Decoder(Protocol):
    """The part of a `tokenizers.Tokenizer` that turns ids into text."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of ids."""
        ...


class TextStream:
    """Detokenizes one id at a time.

    A token may end in the middle of a character, and a token's text may depend on the one before it (a leading
    space). So text is held back while it ends in a broken character, and always decoded with the tokens before it.

    Args:
        decoder: of the bundle's tokenizer.
        stop: strings that end the text and are not part of it.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = ()) -> None:
        self._decoder = decoder
        self._stop = tuple(s for s in stop if s)
        self._ids: list[int] = []
        self._context = 0  # ids[context:done] were given out already, and are decoded again for what follows them
        self._done = 0
        self._held = ""  # text that may turn out to begin a stop string
        self.stopped = False
        """Whether a stop string was met."""

    def push(self, token: int) -> str:
        """The text that this id completes; may be empty."""
        self._ids.append(token)
        text = self._new_text()
        if not text or text.endswith(BROKEN):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return self._cut(text)

    def flush(self) -> str:
        """What is held back at the end; bytes of a character that never was completed are dropped."""
        text = self._cut(self._new_text().rstrip(BROKEN))
        rest, self._held = self._held, ""
        self._context = self._done = len(self._ids)
        return text + ("" if self.stopped else rest)

    def _new_text(self) -> str:
        before = self._decoder.decode(self._ids[self._context : self._done])
        return self._decoder.decode(self._ids[self._context :])[len(before) :]

    def _cut(self, text: str) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [i for i in (text.find(s) for s in self._stop) if i >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, s) for s in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of text that begins stop."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
