"""Runs a Core ML bundle: by our interpreter on any machine, or by the real framework on a Mac.

How the package is called is written at the head of export/formats/coreml.py. In short: `inputIds` and `position` go in,
`logits` come out; the cache is the program's states, or inputs and outputs that are kept here. A model of several
packages is a chain of such calls, each with the cache of its own layers; the residual stream goes from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satchel.runtime.backends.coreml_runners import Framework, Interpreter, Runner, choose_engine
from satchel.runtime.chunks import HIDDEN_IN, HIDDEN_OUT
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.manifest import ChunkEntry, ModelEntry, TensorSpec
from satchel.runtime.mil import OverflowReport, Watch
from satchel.runtime.mil.precision import check_precision

Engine = Literal["auto", "interpreter", "framework"]

# A prompt's last tokens go through the padded prefill function if they fill this part of it, else one at a time.
WORTH_PADDING = 1 / 8

CHAIN = (TensorSpec("inputIds", (1, 1), "int32"), TensorSpec("position", (1,), "int32"))
"""What the caller gives for a token; that a .pte's own signature has other names changes nothing for what is inside."""
PRESENT = {"keyCache": "presentKeys", "valueCache": "presentValues"}


def calls_of(entry: ModelEntry) -> tuple[ChunkEntry, ...]:
    """What is called for each step, in order: the chunks, or the one package as a chunk of all layers (told as 0)."""
    if entry.chunks:
        return entry.chunks
    functions: dict[str, str] = entry.options.get("functions", {"decode": "main"})
    caches = tuple(spec for spec in entry.inputs if spec.name in PRESENT)
    return (ChunkEntry(entry.path, functions, 0, 0, (*CHAIN, *caches), entry.outputs, entry.states),)


@dataclass
class _Call:
    """One call of the chain, and the part of the cache that is kept for it here.

    Attributes:
        runner: of the package; calls of one package share it.
        chunk: which functions are called, and with what.
        cache: name -> what the program is given; empty where it has states.
    """

    runner: Runner
    chunk: ChunkEntry
    cache: dict[str, np.ndarray] = field(default_factory=dict)

    def reset(self) -> None:
        """Empties the cache."""
        self.runner.reset()
        self.cache = {s.name: _zeros(s) for s in self.chunk.inputs if s.name in PRESENT}

    def __call__(self, role: str, given: Mapping[str, np.ndarray], place: slice) -> Mapping[str, np.ndarray]:
        """Runs the function of a role; keeps the keys and values of the tokens at `place`, where that is done here."""
        values = {**given, **self.cache}
        inputs = {s.name: values[s.name] for s in self.chunk.inputs if s.name in values}
        outputs = self.runner(self.chunk.functions[role], inputs)
        for name, cache in self.cache.items():
            cache[:, :, place] = _output(outputs, PRESENT[name])[:, :, : place.stop - place.start]
        return outputs


class CoremlBackend:
    """A Core ML package, or a chain of several, with the cache.

    Args:
        folder: of the bundle.
        entry: how the packages are called.
        precision: of the interpreter: "fp32", or "fp16" to round every fp16 value as the engine would.
        engine: "auto", "interpreter" or "framework".
        max_memory: bytes that the interpreter may spend on expanded weights, of all packages; None is no limit.

    Attributes:
        position: tokens in the cache.
    """

    position: int

    def __init__(
        self,
        folder: Path,
        entry: ModelEntry,
        precision: str = "fp32",
        engine: Engine = "auto",
        max_memory: int | None = None,
    ) -> None:
        check_precision(precision)
        self._entry = entry
        self.engine = choose_engine(engine)
        self._watch = Watch() if self.engine == "interpreter" else None
        share = None if max_memory is None else max_memory // len(entry.paths)
        chunks = calls_of(entry)
        runners = {path: self._runner(folder, path, chunks, precision, share) for path in entry.paths}
        self._calls = [_Call(runners[chunk.path], chunk) for chunk in chunks]
        self._prefills = "prefill" in chunks[0].functions
        self.reset()

    def _runner(
        self, folder: Path, path: str, chunks: Sequence[ChunkEntry], precision: str, max_memory: int | None
    ) -> Runner:
        """Loads a package with the functions of all its calls. One without a position looks up ids and has no state."""
        stateful = self._entry.options.get("cache") == "state"
        functions = {
            chunk.functions[role]: stateful and any(s.name == "position" for s in chunk.inputs)
            for chunk in chunks
            for role in ("decode", "prefill")
            if chunk.path == path and role in chunk.functions
        }
        if self._watch is None:
            return Framework(folder / path, functions, str(self._entry.options.get("compute", "all")))
        first = next((f for f, has_states in functions.items() if has_states), None)
        return Interpreter(folder / path, precision, first, max_memory, self._watch)

    @property
    def overflow(self) -> OverflowReport | None:
        """In fp16, the first op of any call since loading that overflowed or made a NaN."""
        return self._watch.report if self._watch else None

    def reset(self) -> None:
        """Empties the cache."""
        self.position = 0
        for call in self._calls:
            call.reset()

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids to the cache, whole chunks at a time where the package can; returns the last logits [vocab]."""
        self._check(len(ids))
        logits: np.ndarray | None = None
        rest = [int(i) for i in ids]
        while rest:
            size = self._chunk(len(rest))
            logits = self._call(rest[:size], size)
            rest = rest[size:]
        assert logits is not None
        return logits

    def step(self, token: int) -> np.ndarray:
        """Appends one id; returns float32 [vocab]."""
        self._check(1)
        return self._call([int(token)], 1)

    def _check(self, count: int) -> None:
        room = self._entry.context_length - self.position
        if count == 0:
            raise UsageError("tokens to append", got="none", wanted="at least one")
        if count > room:
            hint = f"the context holds {self._entry.context_length} tokens, {self.position} are in it"
            raise UsageError("tokens to append", got=count, wanted=f"at most {room}", hint=hint)

    def _chunk(self, left: int) -> int:
        """How many tokens the next call takes: a (padded) prefill chunk, or one."""
        length = self._entry.prefill_length
        fits = self.position + length <= self._entry.context_length
        if self._prefills and fits and left > length * WORTH_PADDING:
            return min(left, length)
        return 1

    def _call(self, tokens: list[int], count: int) -> np.ndarray:
        """Runs the chain on tokens, padded to the length of its functions, and moves on."""
        by_prefill = count > 1 and self._prefills
        padded = np.zeros((1, self._entry.prefill_length if by_prefill else 1), np.int32)
        padded[0, :count] = tokens
        given = {"inputIds": padded, "position": np.array([self.position], np.int32)}
        place = slice(self.position, self.position + count)
        for call in self._calls:
            outputs = call("prefill" if by_prefill else "decode", given, place)
            if call is not self._calls[-1]:
                hidden = _output(outputs, HIDDEN_OUT)
                given[HIDDEN_IN] = self._embedded(hidden, tokens) if call is self._calls[0] else hidden
        self.position += count
        return np.array(_output(outputs, "logits")[0, count - 1], dtype=np.float32)

    def _embedded(self, hidden: np.ndarray, tokens: list[int]) -> np.ndarray:
        """What the first call of a chain gave for tokens, as the next is given it; a model that sees changes it."""
        return hidden


def _zeros(spec: Any) -> np.ndarray:
    return np.zeros([int(d) for d in spec.shape], np.float32)


def _output(outputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in outputs:
        raise FormatError("outputs of the package", got=sorted(outputs), wanted=name)
    return outputs[name]
