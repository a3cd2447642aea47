"""Logits of characters for each frame -> text, by connectionist temporal classification.

Data: `output`; `vocabulary`, a JSON file of the bundle with the characters in order of their ids; `blank`, the id that
is nothing; `delimiter`, the id between words, or null; `space`, what is written for it; `lower`: whether the text is
made lower case; `frame`, samples of one frame; `rate`; `timestamps`: whether words are told with their times.

Of each frame the largest logit counts (of equal ones the lowest id); equal neighbours are one character; blanks go.
Windows of one sound are joined by frame before that, each without what it shares with its neighbours. The answer is,
for each sound, {"text"}, and with `timestamps` "words", a list of {"text", "start", "end"} in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError
from satchel.runtime.tasks.waveform import Window

if TYPE_CHECKING:
    from satchel.runtime.tasks import Call


@dataclass(frozen=True)
class Ctc:
    """The data of the step."""

    step: str
    output: str
    vocabulary: str
    blank: int
    delimiter: int | None
    space: str
    lower: bool
    frame: int
    rate: int
    timestamps: bool


@dataclass(frozen=True)
class Character:
    """Neighbouring frames of one id; `start` and `end` are frames, the end not included."""

    text: str
    start: int
    end: int


def answer(call: Call, data: Any) -> list[dict[str, Any]]:
    """The text of each sound."""
    how = strict_json.decode(Ctc, data, "task.answer")
    characters = _vocabulary(call, how)
    logits, found, row = call.outputs[how.output], [], 0
    if len(characters) < logits.shape[-1] or min(how.frame, how.rate) < 1:
        raise BundleError("a vocabulary that is too short, or frames of no length", got=(len(characters), how.frame))
    for windows in call.notes["windows"]:
        ids = joined(logits[row : row + len(windows)].argmax(-1), windows, how.frame)
        row += len(windows)
        found.append(_told(decoded(ids, characters, how), how))
    return found


def _vocabulary(call: Call, how: Ctc) -> list[str]:
    from satchel.runtime.tasks import read_json

    found = read_json(call.session, how.vocabulary)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BundleError("a vocabulary that is no list of texts", got=how.vocabulary)
    return found


def joined(rows: np.ndarray, windows: Sequence[Window], frame: int) -> np.ndarray:
    """Ids of a sound: int [frames]. What windows share is divided among them as transformers' pipelines do."""
    if len(windows) == 1:
        return rows[0, : windows[0].frames]
    found = []
    for row, window in zip(rows, windows, strict=True):
        count = round(window.samples / frame)
        left, right = (round(side / window.samples * count) for side in (window.left, window.right))
        found.append(row[: window.frames][left : count - right])
    return np.concatenate(found)


def decoded(ids: np.ndarray, characters: Sequence[str], how: Ctc) -> list[Character]:
    """The characters, in order."""
    found, place = [], 0
    for number, run in groupby(ids.tolist()):
        start, place = place, place + len(list(run))
        if number != how.blank:
            found.append(Character(how.space if number == how.delimiter else characters[number], start, place))
    return found


def _told(characters: Sequence[Character], how: Ctc) -> dict[str, Any]:
    text = "".join(one.text for one in characters).strip()
    found: dict[str, Any] = {"text": text.lower() if how.lower else text}
    if how.timestamps:
        seconds = how.frame / how.rate
        parts = [list(part) for space, part in groupby(characters, lambda one: one.text == how.space) if not space]
        found["words"] = [
            {
                "text": "".join(one.text for one in part),
                "start": round(part[0].start * seconds, 6),
                "end": round(part[-1].end * seconds, 6),
            }
            for part in parts
        ]
    return found
