"""Which text a model is calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from itertools import takewhile, zip_longest

import numpy as np

from satchel.export.calibration.generate import generate_text
from satchel.export.families.base import DecoderConfig
from satchel.export.palettize.spec import Calibration
from satchel.export.progress import Progress, silent
from satchel.export.reference import Reference
from satchel.export.tokenizer import BundleTokenizer
from satchel.runtime.errors import UsageError

SHIPPED = ("alice", "britannica", "manual")
"""Texts in text/: a story, an encyclopedia, a manual. text/README.md says where they come from."""

HELD_BACK = 8
"""Windows at the ends of the shipped texts that no calibration reads."""

STARTS = ("The", "In", "How to", "A", "def ", "Once upon a time", "# ", "It is")
"""Short beginnings from which the model goes on with text of its own."""


def calibration_ids(
    reference: Reference,
    tokenizer: BundleTokenizer | None,
    calibration: Calibration,
    text: str | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """What a model is calibrated on: text of its own, and text that ships with Satchel.

    Args:
        reference: holds the original weights. One that is streamed generates nothing, and reads as much more.
        tokenizer: None for a model without one, which then generates everything from random ids, or, streamed, reads
            random ids.
        calibration: how many sequences, and of what length.
        text: to read instead of both, as much of it as there are sequences for.
        progress: told how far it is.

    Returns:
        int64 [sequences, length].

    Raises:
        UsageError: a text without a tokenizer, or one that is too short.
    """
    count, length = calibration.own + calibration.shipped, min(calibration.length, reference.config.max_position)
    if text is not None:
        return _windows([_encoded(text, tokenizer)], count, length)
    if tokenizer is None and reference.streamed:
        random = np.random.Generator(np.random.PCG64(calibration.seed))
        return random.integers(0, reference.config.vocab_size, (count, length))
    own = 0 if reference.streamed else calibration.own if tokenizer else count
    parts = []
    if own:
        starts = calibration_starts(reference.config.vocab_size, tokenizer, calibration.seed)
        parts.append(generate_text(reference.model, starts, replace(calibration, own=own), progress=progress))
    if tokenizer and own < count:
        parts.append(_windows(_shipped(tokenizer), count - own, length))
    return np.concatenate(parts)


def held_back_ids(used: np.ndarray, tokenizer: BundleTokenizer | None, config: DecoderConfig, seed: int) -> np.ndarray:
    """Shipped text that no calibration has read; random ids for a model without a tokenizer.

    Args:
        used: int64 [sequences, length], what the model was calibrated on.
        tokenizer, config: of the model.
        seed: of random ids.

    Returns:
        int64 [HELD_BACK, length].
    """
    if tokenizer is None:
        random = np.random.Generator(np.random.PCG64([seed, HELD_BACK]))
        return random.integers(0, config.vocab_size, (HELD_BACK, used.shape[1]))
    return _windows(_shipped(tokenizer), 1 << 20, used.shape[1])[-HELD_BACK:]


def shipped_texts() -> list[str]:
    """The texts that ship with Satchel, whole."""
    folder = files(__package__) / "text"
    return [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in SHIPPED]


def _shipped(tokenizer: BundleTokenizer) -> list[list[int]]:
    folder = files("satchel.export.calibration") / "text"
    return [tokenizer.encode((folder / f"{name}.txt").read_text(encoding="utf-8")) for name in SHIPPED]


def _encoded(text: str, tokenizer: BundleTokenizer | None) -> list[int]:
    if tokenizer is None:
        raise UsageError("a calibration text needs a tokenizer", hint="leave out --calibration or --no-tokenizer")
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise UsageError("the calibration text is empty", got=f"{len(ids)} tokens", wanted="a few thousand tokens")
    return ids


def _windows(texts: list[list[int]], count: int, length: int) -> np.ndarray:
    """Up to `count` windows of `length` ids, from the texts by turns, each from its beginning on.

    Texts that are all shorter than a window give one, of the longest of them.
    """
    length = min(length, max(len(t) for t in texts))
    cut = [[t[i : i + length] for i in range(0, len(t) - length + 1, length)] for t in texts]
    by_turns = [w for row in zip_longest(*cut) for w in row if w is not None]
    return np.array(by_turns[:count], np.int64)


def calibration_starts(vocab_size: int, tokenizer: BundleTokenizer | None, seed: int) -> list[Sequence[int]]:
    """Beginnings of the generated text: by turns a short piece of text and a chat whose question is still to come."""
    if tokenizer is None:
        return [(int(i),) for i in np.random.Generator(np.random.PCG64(seed)).integers(0, vocab_size, 32)]
    chat = _open_question(tokenizer)
    texts = [tokenizer.encode(start) for start in STARTS]
    starts = [s for text in texts for s in (text, chat) if s]
    return [*starts] or [[tokenizer.rules.bos_id or 0]]


def _open_question(tokenizer: BundleTokenizer) -> list[int]:
    """A conversation up to where the user's first words go; [] without a template or with one that tells the date."""
    if tokenizer.chat_template is None or tokenizer.tells_the_time:
        return []
    one, other = (tokenizer.encode_chat([{"role": "user", "content": text}]) for text in ("Yes", "Why"))
    return [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]
