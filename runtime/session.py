"""A loaded bundle that answers: the same calls for Core ML, ONNX and ExecuTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from satchel.runtime.backends import load_backend
from satchel.runtime.backends.base import Backend
from satchel.runtime.bundle import Bundle, open_bundle
from satchel.runtime.bundle_tokenizer import read_template, read_tokenizer
from satchel.runtime.chat import Guard, Message, checked, control_tokens, encode_guarded
from satchel.runtime.errors import TokenizerError, UsageError
from satchel.runtime.generate import TextStream
from satchel.runtime.image_tokens import with_pictures
from satchel.runtime.images import Prepared
from satchel.runtime.manifest import TokenRules
from satchel.runtime.pictures import Pictures
from satchel.runtime.sampling import Sampler, Sampling
from satchel.runtime.summary import summary


def load(path: str | Path, *, verify: bool = True, **options: Any) -> Session:
    """Opens a bundle and loads its model.

    Args:
        path: the bundle's folder.
        verify: hash every file first; False for later starts, which checks names and sizes only.
        options: of the backend, such as `threads` for ONNX or `precision` for Core ML's interpreter.

    Raises:
        BundleError: the bundle is incomplete or altered.
        TokenizerError: its tokenizer cannot be read or does not fit.
        MissingPackageError, FormatError: the model cannot be executed here.
    """
    bundle = open_bundle(path, verify=verify)
    return Session(bundle, load_backend(bundle.folder, bundle.manifest.entry, **options))


@dataclass
class _Turn:
    """An answer that a next turn of the same conversation can continue.

    Attributes:
        text: rendered conversation and answer.
        ids: of both, as the model saw and chose them.
    """

    text: str
    ids: list[int]


@dataclass(frozen=True)
class _Room:
    """How many ids an answer may have, and what it is that ends it there."""

    ids: int
    reason: str


class Session:
    """A model with its cache, and its tokenizer if the bundle has one. Not for several threads at once.

    Args:
        bundle: an opened bundle.
        backend: that runs its model.
    """

    def __init__(self, bundle: Bundle, backend: Backend) -> None:
        self.bundle = bundle
        self.tokenizer: Tokenizer | None = read_tokenizer(bundle)
        self.finish_reason: str = ""
        """Why the last answer ended: "stop", "length" (max_new_tokens) or "context" (the cache is full)."""
        self._backend = backend
        self._template = read_template(bundle)
        self._pictures = Pictures(bundle.manifest.entry.vision, backend)
        self._cached: list[int] | None = []  # ids in the backend's cache; None where that is not known
        self._turn: _Turn | None = None
        self._answers = 0

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def info(self) -> dict[str, Any]:
        """The essentials of the manifest, as a JSON object."""
        return summary(self.bundle)

    @property
    def places_pictures(self) -> bool:
        """Whether the chat template places pictures; if not, plain prompts get them in front."""
        return self._pictures.in_template

    def reset(self) -> None:
        """Forgets everything: empties the cache and ends the conversation."""
        self._backend.reset()
        self._answers += 1
        self._cached, self._turn = [], None

    def close(self) -> None:
        """Releases the model; the session is of no use afterwards."""
        close: Callable[[], None] | None = getattr(self._backend, "close", None)
        self._cached = None
        if close:
            close()

    def logits(self, ids: Sequence[int], images: Sequence[Any] = ()) -> np.ndarray:
        """The logits after each id, from an empty cache, by decode steps.

        Args:
            ids: 1 to context_length ids.
            images: as for generate_ids; their places are among the ids already.

        Returns:
            float32 [len(ids), vocab].
        """
        self._check_prompt(ids, room=0)
        prepared = self._pictures.prepare(images)
        self.reset()
        self._pictures.show(prepared)
        self._cached = None
        rows = [self._backend.step(int(i)) for i in ids]
        self._cached = [int(i) for i in ids]
        return np.stack(rows).astype(np.float32, copy=False)

    def generate_ids(
        self,
        ids: Sequence[int],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop_ids: Sequence[int] | None = None,
        images: Sequence[Any] = (),
    ) -> Iterator[int]:
        """The ids that follow `ids`, one by one as they are chosen.

        Args:
            ids: the prompt.
            max_new_tokens: ends the answer; a number that the context cannot hold is an error. By default the
                manifest's number, or as many as there is room for.
            temperature, top_k, top_p: see Sampling; by default the manifest's.
            seed: the same seed gives the same answer.
            stop_ids: end the answer and are not part of it; by default the manifest's; () never stops.
            images: pictures that the prompt shows, in the order of their placeholders, of which there is one for each:
                paths, images of Pillow, or arrays uint8 [height, width, 3].

        Raises:
            UsageError: an id outside the vocabulary, a prompt or answer that the context cannot hold, or a
                temperature, top_k, top_p or seed out of range. At the call, before the first id is asked for.
        """
        sampler = self._sampler(temperature, top_k, top_p, seed)
        prepared = self._pictures.prepare(images)
        given = self._pictures.expand(ids, prepared, self._encode_part) if prepared else [int(i) for i in ids]
        room = self._room(given, max_new_tokens)
        stop = frozenset(self._tokens.stop_ids if stop_ids is None else stop_ids)
        self._turn = None
        return self._ids(given, room, sampler, stop, reuse=False, pictures=prepared)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        images: Sequence[Any] = (),
    ) -> Iterator[str]:
        """The text that follows a prompt, in pieces as it comes; no piece ends inside a character.

        Args:
            prompt: text, encoded as FORMAT.md says, or ids.
            max_new_tokens, temperature, top_k, top_p, seed: as for generate_ids.
            stop: strings that end the answer and are not part of it.
            images: as for generate_ids; a text without placeholders gets them in front.

        Raises:
            TokenizerError: the bundle has no tokenizer.
            UsageError: as for generate_ids.
        """
        stream = TextStream(self._need_tokenizer(), _strings(stop))
        prepared = self._pictures.prepare(images)
        if isinstance(prompt, str):
            prompt = self.encode(self._pictures.placed(prompt, prepared))
        ids = self._pictures.expand(prompt, prepared, self._encode_part)
        sampler = self._sampler(temperature, top_k, top_p, seed)
        room = self._room(ids, max_new_tokens)
        self._turn = None
        stops = frozenset(self._tokens.stop_ids)
        chosen = self._ids([int(i) for i in ids], room, sampler, stops, reuse=False, pictures=prepared)
        return self._text(chosen, stream)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_new_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        images: Sequence[Any] = (),
    ) -> Iterator[str]:
        """The assistant's answer to a conversation, in pieces as it comes.

        Where the messages are those of the last call, its answer, and more, only what is new is computed.

        Args:
            messages: each with "role" and "content", oldest first.
            max_new_tokens, temperature, top_k, top_p, seed, stop: as for generate.
            images: pictures, in order, of parts {"type": "image"} in the contents; where there is no such part, the
                last message shows them. What pictures were shown in is computed anew each time.

        Raises:
            TokenizerError: the bundle has no tokenizer or no chat template.
            UsageError: the template refuses the messages, or as for generate_ids.
        """
        stream = TextStream(self._need_tokenizer(), _strings(stop))
        prepared = self._pictures.prepare(images)
        rendered, ids = self._encode_chat(messages, None if prepared else self._turn, prepared)
        sampler = self._sampler(temperature, top_k, top_p, seed)
        room = self._room(ids, max_new_tokens)
        chosen = self._ids(ids, room, sampler, frozenset(self._tokens.stop_ids), reuse=True, pictures=prepared)
        return self._answer(rendered, ids, chosen, stream) if not prepared else self._text(chosen, stream)

    def encode(self, text: str) -> list[int]:
        """A plain prompt -> ids, with bos in front where the model wants it."""
        tokenizer, tokens = self._need_tokenizer(), self._tokens
        ids = list(tokenizer.encode(text, add_special_tokens=False).ids)
        if tokens.prepend_bos and tokens.bos_id is not None and ids[:1] != [tokens.bos_id]:
            ids.insert(0, tokens.bos_id)
        return ids

    def encode_chat(self, messages: Sequence[Message], images: Sequence[Any] = ()) -> list[int]:
        """A conversation -> the ids that the model is given, ready for its answer."""
        return self._encode_chat(messages, None, self._pictures.prepare(images))[1]

    def _encode_part(self, text: str) -> list[int]:
        """Ids of what goes around placeholders."""
        return list(self._need_tokenizer().encode(text, add_special_tokens=False).ids) if text else []

    @property
    def _tokens(self) -> TokenRules:
        return self.bundle.manifest.tokens

    def _sampler(self, temperature: float | None, top_k: int | None, top_p: float | None, seed: int | None) -> Sampler:
        default = self.bundle.manifest.generation
        how = Sampling(
            default.temperature if temperature is None else temperature,
            default.top_k if top_k is None else top_k,
            default.top_p if top_p is None else top_p,
        )
        return Sampler(how, seed)

    def _check_prompt(self, ids: Sequence[int], room: int) -> None:
        size, context = self._tokens.vocab_size, self.bundle.manifest.entry.context_length
        if not len(ids):
            raise UsageError("the prompt is empty", wanted="at least one id")
        if min(ids) < 0 or max(ids) >= size:
            raise UsageError("ids outside the vocabulary", got=(min(ids), max(ids)), wanted=f"0..{size - 1}")
        if len(ids) + room > context:
            hint = "shorten the prompt or the answer, or export with a larger --context"
            got = f"{len(ids)} ids of prompt" + (f" and {room} of answer" if room else "")
            raise UsageError("the context cannot hold this", got=got, wanted=f"at most {context} ids", hint=hint)

    def _room(self, ids: Sequence[int], max_new_tokens: int | None) -> _Room:
        """How long the answer may be. The last id of an answer needs no place in the cache; it is not counted."""
        if max_new_tokens is not None and max_new_tokens < 1:
            raise UsageError("max_new_tokens is out of range", got=max_new_tokens, wanted=">= 1")
        self._check_prompt(ids, room=(max_new_tokens or 1) - 1)
        wanted = max_new_tokens or self.bundle.manifest.generation.max_new_tokens
        free = self.bundle.manifest.entry.context_length - len(ids) + 1
        return _Room(wanted, "length") if wanted <= free else _Room(free, "context")

    def _ids(
        self,
        ids: list[int],
        room: _Room,
        sampler: Sampler,
        stop: frozenset[int],
        reuse: bool,
        pictures: Sequence[Prepared] = (),
    ) -> Iterator[int]:
        self._answers += 1
        answer = self._answers
        self.finish_reason = ""
        logits = self._feed(ids, reuse, pictures)
        for count in range(1, room.ids + 1):
            token = sampler(logits)
            if token in stop:
                self.finish_reason = "stop"
                return
            yield token
            if answer != self._answers or self._cached is None:
                raise UsageError(
                    "another call has used this session meanwhile", hint="load one session for each answer"
                )
            if count < room.ids:
                logits = self._step(token)
        self.finish_reason = room.reason

    def _feed(self, ids: list[int], reuse: bool, pictures: Sequence[Prepared]) -> np.ndarray:
        """Brings the cache to hold exactly `ids`; returns the logits after the last.

        `reuse` keeps what the cache holds already. Without it the same prompt gives the same numbers whatever came
        before: prefill and decode steps round differently.
        """
        held, self._cached = (self._cached if reuse else None), None
        if self._pictures.show(pictures):
            held = None
        if held is None or len(held) >= len(ids) or ids[: len(held)] != held:
            self._backend.reset()
            held = []
        self._cached = None  # until the backend has returned: an interrupted call leaves the cache in between
        logits = self._backend.prefill(ids[len(held) :])
        self._cached = list(ids)
        return logits

    def _step(self, token: int) -> np.ndarray:
        held, self._cached = self._cached, None
        logits = self._backend.step(token)
        self._cached = [*(held or []), token]
        return logits

    def _text(self, chosen: Iterator[int], stream: TextStream) -> Iterator[str]:
        for token in chosen:
            if piece := stream.push(token):
                yield piece
            if stream.stopped:
                self.finish_reason = "stop"
                return
        if piece := stream.flush():
            yield piece

    def _answer(self, rendered: str, ids: list[int], chosen: Iterator[int], stream: TextStream) -> Iterator[str]:
        """Streams an answer, and remembers it so that the next turn can go on from it."""
        self._turn = None
        answer: list[int] = []
        text = ""
        for piece in self._text(_noting(chosen, answer), stream):
            text += piece
            yield piece
        if not stream.stopped and text == self._need_tokenizer().decode(answer):
            self._turn = _Turn(rendered + text, ids + answer)

    def _encode_chat(
        self, messages: Sequence[Message], turn: _Turn | None, pictures: Sequence[Prepared] = ()
    ) -> tuple[str, list[int]]:
        """Rendered text and its ids; where it goes on from `turn`, with the ids that the model chose there."""
        tokenizer = self._need_tokenizer()
        if self._template is None:
            hint = "give a plain prompt (--prompt without --chat)"
            raise TokenizerError("the bundle has no chat template", wanted="chat_template.jinja", hint=hint)
        controls = control_tokens(tokenizer)
        messages = checked(messages)
        if self._pictures.in_template:
            messages = with_pictures(messages, len(pictures))
        elif pictures:
            hint = "give a plain prompt (--raw), which gets them in front"
            raise UsageError("the chat template of this model places no pictures", got=len(pictures), hint=hint)
        guard = Guard.of(messages, list(controls))
        rendered = self._template.render(guard.hide(list(messages)))
        rest = rendered[len(turn.text) :] if turn and rendered.startswith(turn.text) else ""
        if turn and any(rest.startswith(token) for token in controls):  # a control token: no merge crosses this border
            return rendered, turn.ids + encode_guarded(tokenizer, rest, guard)
        ids = encode_guarded(tokenizer, rendered, guard)
        return rendered, self._pictures.expand(ids, pictures, self._encode_part)

    def _need_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            hint = "use ids (generate_ids, logits), or export again without --no-tokenizer"
            raise TokenizerError("the bundle has no tokenizer", hint=hint)
        return self.tokenizer


def _strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _noting(chosen: Iterator[int], into: list[int]) -> Iterator[int]:
    for token in chosen:
        into.append(token)
        yield token
