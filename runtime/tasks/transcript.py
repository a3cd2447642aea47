"""Spectrograms -> text by an encoder and a decoder with a cache (export/tasks/speech_graphs.py has their signatures).

Data: `layers` of the decoder; `frames` of one window, each `frame_seconds` long, of which the encoder makes one of
`stride`; `slots` of the decoder's past; `start`, the first id; `ends`, ids that end an answer; `languages` (code ->
id), `names` (of languages -> code), `tasks` ("transcribe", "translate" -> id); `forced`, ids behind the first where
neither `language` nor `task` is said, null for the language that is found out; `no_timestamps`, the id that says so,
behind which the timestamps begin, or null; `latest_start`, the largest timestamp that may come first, or null;
`suppress`, ids that are never chosen; `suppress_first`, ids that are not chosen first; `longest`, ids in all besides
the forced ones, or null; and what a caller may say instead: `language` (code or name, "" to find it out), `task` or "",
`translate`, `timestamps`.

The ids that come first: `start`; then `forced`, or the language and the task. A language that is not said is the one
with the largest logit behind `start` alone. Without timestamps `no_timestamps` follows. Each id is one call of the
decoder. The largest logit is chosen (of equal ones the lowest id) after `suppress`, `suppress_first`, and with
timestamps the rules of `Choice` below.

A window begins where the one before ended: at its last pair of timestamps, or `frames` later where there is none or
where it ends with a single one. Past the sound's end a window is filled with zeros. A sound of more than one window
needs timestamps, which are then on. The answer is, for each sound, {"text"}, "language" where the model knows several,
and with `timestamps`, or more than one window, "segments", a list of {"text", "start", "end"} in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError, UsageError

if TYPE_CHECKING:
    from satchel.runtime.module.session import ModuleSession
    from satchel.runtime.tasks import Call

KINDS = ("key", "value")
NEVER = -np.inf


def names_of(what: str, layers: int) -> tuple[str, ...]:
    """Names of the tensors of all layers: "past_key_0", "past_value_0", "past_key_1", ..."""
    return tuple(f"{what}_{kind}_{i}" for i in range(layers) for kind in KINDS)


@dataclass(frozen=True)
class Transcript:
    """The data of the step."""

    step: str
    layers: int
    frames: int
    stride: int
    frame_seconds: float
    slots: int
    start: int
    ends: tuple[int, ...]
    forced: tuple[int | None, ...]
    languages: dict[str, int]
    names: dict[str, str]
    tasks: dict[str, int]
    no_timestamps: int | None
    latest_start: int | None
    suppress: tuple[int, ...]
    suppress_first: tuple[int, ...]
    longest: int | None
    language: str
    task: str
    translate: bool
    timestamps: bool

    @property
    def first_timestamp(self) -> int:
        """The id of 0 seconds; larger than any where there are none."""
        return 2**31 if self.no_timestamps is None else self.no_timestamps + 1

    @property
    def tick(self) -> float:
        """Seconds from one timestamp to the next."""
        return self.stride * self.frame_seconds

    def check(self) -> None:
        """Raises UsageError where what is asked for is not what the model has."""
        if self.language and self.code() not in self.languages:
            wanted = ", ".join(self.languages) or "none: it knows one language only"
            raise UsageError("a language that the model does not know", got=self.language, wanted=wanted)
        if self.wanted_task and self.wanted_task not in self.tasks:
            wanted = ", ".join(self.tasks) or "none: it knows one task only"
            raise UsageError("a task that the model does not know", got=self.wanted_task, wanted=wanted)
        if self.timestamps and self.no_timestamps is None:
            raise UsageError("timestamps, of a model that has none", wanted="up to one window of sound, without them")

    def code(self) -> str:
        """Of the language; "" where it is not said."""
        return self.names.get(self.language.lower(), self.language.lower())

    @property
    def wanted_task(self) -> str:
        """ "transcribe", "translate", or "" where it is not said."""
        return "translate" if self.translate else self.task


@dataclass(frozen=True)
class Segment:
    """What was said from one second of the sound to another; ids with timestamps."""

    start: float
    end: float
    ids: tuple[int, ...]


def answer(call: Call, data: Any) -> list[dict[str, Any]]:
    """The text of each sound."""
    from satchel.runtime.tasks.tokens import read

    how = strict_json.decode(Transcript, data, "task.answer")
    how.check()
    tokenizer, found = read(call), []
    for features in call.notes["features"]:
        own = how if features.shape[1] <= how.frames else replace(how, timestamps=True)
        own.check()
        model = Transcriber(call.session, own)
        segments = list(model.segments(features))
        words = [[i for i in segment.ids if i < own.first_timestamp] for segment in segments]
        one: dict[str, Any] = {"text": tokenizer.decode([i for ids in words for i in ids])}
        if model.language:
            one["language"] = model.language
        if own.timestamps:
            one["segments"] = [
                {"text": tokenizer.decode(ids), "start": round(s.start, 6), "end": round(s.end, 6)}
                for s, ids in zip(segments, words, strict=True)
            ]
        found.append(one)
    return found


class Transcriber:
    """Encoder and decoder on one sound.

    Args:
        session: of the module.
        how: to decode.

    Attributes:
        language: code of the language that was said or found out; "" for a model of one.
    """

    def __init__(self, session: ModuleSession, how: Transcript) -> None:
        check_parts(session, how)
        self._session, self._how = session, how
        self._cross: dict[str, np.ndarray] = {}
        self._forced: list[int] = []
        self.language = how.code()

    def segments(self, features: np.ndarray) -> Iterator[Segment]:
        """float32 [mels, frames] -> segments, in order."""
        how, seek = self._how, 0
        while seek < features.shape[1]:
            window = features[:, seek : seek + how.frames]
            filled = np.pad(window, ((0, 0), (0, how.frames - window.shape[1])))
            self._cross = self._session.run_part("encoder", {"input_features": filled[None]})
            self._forced = self._forced or self._first_ids()
            found, ahead = split(self._ids(), seek, window.shape[1], how)
            yield from found
            seek += ahead if ahead > 0 else window.shape[1]  # a timestamp of 0 would go on for ever

    def _first_ids(self) -> list[int]:
        how = self._how
        said = [*how.forced] if not how.language and not how.wanted_task else []
        if how.languages and (how.language or not said or said[0] is None):
            self.language = self.language or self._spoken()
            said[:1] = [how.languages[self.language]]
        elif said:
            self.language = next((code for code, number in how.languages.items() if number == said[0]), "")
        if how.wanted_task:
            said.append(how.tasks[how.wanted_task])
        elif how.language and "transcribe" in how.tasks:
            said.append(how.tasks["transcribe"])
        said = [number for number in said if number not in (None, how.no_timestamps)]
        if not how.timestamps and how.no_timestamps is not None:
            said.append(how.no_timestamps)
        return [how.start, *(number for number in said if number is not None)]

    def _spoken(self) -> str:
        """The code of the likeliest language."""
        logits = self._step(self._how.start, 0, self._empty())
        return max(
            self._how.languages, key=lambda code: (logits[self._how.languages[code]], -self._how.languages[code])
        )

    def _empty(self) -> dict[str, np.ndarray]:
        specs = {spec.name: spec for spec in self._session.parts["decoder"].inputs}
        past = (specs[name] for name in names_of("past", self._how.layers))
        return {spec.name: np.zeros([int(size) for size in spec.shape], spec.dtype) for spec in past}

    def _step(self, number: int, place: int, past: dict[str, np.ndarray]) -> np.ndarray:
        """float64 [vocab] behind one id, whose rows are put into `past`."""
        ids, position = np.array([[number]]), np.array([place])
        found = self._session.run_part("decoder", {"input_ids": ids, "position": position, **self._cross, **past})
        for name, values in past.items():
            values[:, :, place] = found[name.replace("past", "present")][:, :, 0]
        return np.asarray(found["logits"][0], np.float64)

    def _ids(self) -> list[int]:
        """What is said of the window, without what comes first and without the end."""
        how, past, said = self._how, self._empty(), list(self._forced)
        longest = how.slots if how.longest is None else min(how.slots, how.longest + len(said))
        for place, number in enumerate(said):
            logits = self._step(number, place, past)
        while len(said) < longest:
            number = choose(logits, said[len(self._forced) :], how)
            if number in how.ends:
                break
            said.append(number)
            if len(said) < longest:
                logits = self._step(number, len(said) - 1, past)
        return said[len(self._forced) :]


def check_parts(session: ModuleSession, how: Transcript) -> None:
    """Raises BundleError where the step's numbers are not those of the model's parts."""
    if set(session.parts) != {"encoder", "decoder"} or min(how.frames, how.stride, how.slots, how.layers) < 1:
        raise BundleError("parts of a transcript that do not fit", got=sorted(session.parts))
    decoder = session.parts["decoder"]
    shapes = {spec.name: spec.shape for spec in (*decoder.inputs, *decoder.outputs)}
    pasts = [shapes.get(name, ()) for name in names_of("past", how.layers)]
    if any(len(shape) != 4 or shape[2] != how.slots for shape in pasts) or "logits" not in shapes:
        raise BundleError("a past of another size than the decoder's", got=how.slots, wanted=pasts)
    ids = {how.start, how.no_timestamps, *how.ends, *how.forced, *how.languages.values(), *how.tasks.values()}
    if any(i is not None and not 0 <= i < int(shapes["logits"][-1]) for i in ids):
        raise BundleError("ids beyond the model's vocabulary", got=ids, wanted=f"0 to {shapes['logits'][-1]}")


def choose(logits: np.ndarray, said: Sequence[int], how: Transcript) -> int:
    """The next id.

    With timestamps: one comes first, up to `latest_start`; they come in pairs, but for one before the end; they do not
    fall, and a pair's second is the only one that may repeat the one before; and if all of them together are likelier
    than any other id, it is one of them.

    Args:
        logits: float64 [vocab].
        said: ids behind those that come first.
        how: to choose.
    """
    scores = logits.copy()
    scores[[i for i in how.suppress if i < len(scores)]] = NEVER
    if not said:
        scores[[i for i in how.suppress_first if i < len(scores)]] = NEVER
    if how.timestamps and how.no_timestamps is not None:
        _timestamps(scores, said, how)
    return int(scores.argmax())


def _timestamps(scores: np.ndarray, said: Sequence[int], how: Transcript) -> None:
    first = how.first_timestamp
    scores[how.no_timestamps] = NEVER
    last, before = bool(said) and said[-1] >= first, len(said) < 2 or said[-2] >= first
    if last and before:
        scores[first:] = NEVER
    elif last:
        scores[: how.ends[0] if how.ends else 0] = NEVER
    earlier = [i for i in said if i >= first]
    if earlier:
        scores[first : earlier[-1] + (0 if last and not before else 1)] = NEVER
    if not said:
        scores[:first] = NEVER
        if how.latest_start is not None:
            scores[first + how.latest_start + 1 :] = NEVER
    if _log_sum(scores[first:]) > scores[:first].max(initial=NEVER):
        scores[:first] = NEVER


def _log_sum(scores: np.ndarray) -> float:
    largest = float(scores.max(initial=NEVER))
    return largest + float(np.log(np.exp(scores - largest).sum())) if np.isfinite(largest) else NEVER


def split(ids: Sequence[int], seek: int, frames: int, how: Transcript) -> tuple[list[Segment], int]:
    """A window's ids as segments, and by how many frames the next window begins later.

    Args:
        ids: of the window.
        seek: its first frame.
        frames: of the sound in it.
        how: decoded.
    """
    first, base = how.first_timestamp, seek * how.frame_seconds
    is_time = [i >= first for i in ids]
    single = is_time[-2:] == [False, True]
    cuts = [i + 1 for i in range(len(ids) - 1) if is_time[i] and is_time[i + 1]]
    if not cuts:
        return [Segment(base, base + _end(ids, frames, how), tuple(ids))], frames
    if single:
        cuts.append(len(ids))
    else:
        cuts[-1] += 1  # the last pair stays together; what follows it is said again by the next window
    found, start = [], 0
    for end in cuts:
        last = ids[end - 2] if end == cuts[-1] and not single else ids[end - 1]
        begins, ends = (base + (i - first) * how.tick for i in (ids[start], last))
        found.append(Segment(begins, ends, tuple(ids[start:end])))
        start = end
    return found, frames if single else (ids[start - 2] - first) * how.stride


def _end(ids: Sequence[int], frames: int, how: Transcript) -> float:
    """Seconds from a window's begin to its end, or to its last timestamp."""
    times = [i - how.first_timestamp for i in ids if i >= how.first_timestamp]
    return (times[-1] if times and times[-1] else frames // how.stride) * how.tick
