"""Which text calibrates a model, and the statistics over it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib.resources import files
from itertools import takewhile, zip_longest

import numpy as np

from satchel.export.palettize.calibrate import calibrate_on, generate_text, self_calibrate
from satchel.export.palettize.spec import Calibration
from satchel.export.progress import Progress, silent
from satchel.export.reference import Reference
from satchel.export.tokenizer import BundleTokenizer
from satchel.runtime.errors import UsageError

SHIPPED = ("alice", "britannica", "manual")
"""Texts in text/: a story, an encyclopedia, a manual. text/README.md says where they come from."""

STARTS = ("The", "In", "How to", "A", "def ", "Once upon a time", "# ", "It is")
"""Short beginnings from which the model goes on with text of its own."""


def statistics_for(
    reference: Reference,
    tokenizer: BundleTokenizer | None,
    calibration: Calibration,
    text: str | None = None,
    progress: Progress = silent,
) -> dict[str, np.ndarray]:
    """Mean square of each linear's input channels.

    Args:
        reference: holds the original weights.
        tokenizer: None for a model without one, which then goes on from random ids.
        calibration: how much text the model generates.
        text: to read instead.
        progress: told how far it is.

    Returns:
        Canonical name -> float32 [columns].

    Raises:
        UsageError: a text without a tokenizer, or an empty one.
    """
    linears = reference.linears()
    if text is None:
        starts = calibration_starts(reference.config.vocab_size, tokenizer, calibration.seed)
        return self_calibrate(reference.model, linears, starts, calibration, progress=progress)
    return calibrate_on(reference.model, linears, _encoded(text, tokenizer), progress=progress)


def calibration_ids(
    reference: Reference,
    tokenizer: BundleTokenizer | None,
    calibration: Calibration,
    text: str | None = None,
    progress: Progress = silent,
) -> np.ndarray:
    """What the curvature is measured over: half of it the model's own text, half of it from the shipped texts.

    Args:
        reference: holds the original weights.
        tokenizer: None for a model without one, which then goes on from random ids alone.
        calibration: how many sequences altogether, and of what length.
        text: to read instead of both, as much of it as there are sequences for.
        progress: told how far it is.

    Returns:
        int64 [sequences, length].

    Raises:
        UsageError: a text without a tokenizer, or one that is too short.
    """
    length = min(calibration.length, reference.config.max_position)
    if text is not None:
        return _windows([_encoded(text, tokenizer)], calibration.sequences, length)
    starts = calibration_starts(reference.config.vocab_size, tokenizer, calibration.seed)
    own = dataclasses.replace(calibration, sequences=calibration.sequences // 2 if tokenizer else calibration.sequences)
    written = generate_text(reference.model, starts, own, progress=progress).numpy()
    if tokenizer is None:
        return written
    folder = files("satchel.export.calibration") / "text"
    shipped = [tokenizer.encode((folder / f"{name}.txt").read_text(encoding="utf-8")) for name in SHIPPED]
    return np.concatenate([written, _windows(shipped, calibration.sequences - own.sequences, length)])


def _encoded(text: str, tokenizer: BundleTokenizer | None) -> list[int]:
    if tokenizer is None:
        raise UsageError("a calibration text needs a tokenizer", hint="leave out --calibration or --no-tokenizer")
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise UsageError("the calibration text is empty", got=f"{len(ids)} tokens", wanted="a few thousand tokens")
    return ids


def _windows(texts: list[list[int]], count: int, length: int) -> np.ndarray:
    """Up to `count` windows of `length` ids, from the texts by turns, each from its beginning on.

    A single text that is shorter than a window is one window.
    """
    if len(texts) == 1:
        length = min(length, len(texts[0]))
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
