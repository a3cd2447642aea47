"""Which text calibrates a model, and the statistics over it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from satchel.export.palettize.calibrate import calibrate_on, self_calibrate
from satchel.export.palettize.spec import Calibration
from satchel.export.progress import Progress, silent
from satchel.export.reference import Reference
from satchel.export.tokenizer import BundleTokenizer
from satchel.runtime.errors import UsageError

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
    if tokenizer is None:
        raise UsageError("a calibration text needs a tokenizer", hint="leave out --calibration or --no-tokenizer")
    ids = tokenizer.encode(text)
    if len(ids) < 2:
        raise UsageError("the calibration text is empty", got=f"{len(ids)} tokens", wanted="a few thousand tokens")
    return calibrate_on(reference.model, linears, ids, progress=progress)


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
