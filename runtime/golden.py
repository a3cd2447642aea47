"""The golden data of a bundle: what the reference model says to fixed prompts. See FORMAT.md, "golden/".

`golden.json` holds the structure, and raw little-endian arrays the numbers, so that any language reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError
from satchel.runtime.golden_layers import GoldenLayers
from satchel.runtime.golden_vision import PICTURE, GoldenVision

SCHEMA_VERSION = 1
TOP = 32
"""Logits kept at each position."""
STEPS = 32
"""Tokens of a greedy continuation."""

SetName = Literal["reference", "weights"]
SET_NAMES: tuple[SetName, ...] = ("reference", "weights")


@dataclass(frozen=True)
class GoldenPrompt:
    """A prompt and the tokens that are forced after it.

    Attributes:
        text: as a user would give it; None where there is no tokenizer.
        ids: token ids as the model is given them, bos and chat template included.
        continuation: the reference's greedy continuation, STEPS ids, going on after a stop id.
        picture: the golden picture's file where the prompt shows it, once; None where it shows none.
    """

    text: str | None
    ids: tuple[int, ...]
    continuation: tuple[int, ...]
    picture: str | None = field(default=None, metadata=strict_json.OPTIONAL)

    @property
    def sequence(self) -> tuple[int, ...]:
        """The ids whose logits are recorded, in order: the prompt, then the continuation without its last id."""
        return self.ids + self.continuation[:-1]


@dataclass(frozen=True)
class GoldenSet:
    """What one model (see FORMAT.md: "reference" or "weights") says, over all prompts.

    A row belongs to one id of one prompt's `sequence` and describes the logits after that id; prompts follow each
    other in order. Rows are sorted by falling logit, equal logits by rising id.

    Attributes:
        top_ids: int32 [positions, top].
        top_logits: float32 [positions, top].
        logsumexp: float32 [positions], over the whole vocabulary, so that logit - logsumexp is a log-probability.
        rest_logsumexp: float32 [positions], over the ids not in top_ids; -inf where there are none. Kept apart since
            1 - sum(p) of rounded numbers is no measure of a small rest.
        greedy_ids: int32 [prompts, steps]: the model's own greedy continuation.
        greedy_runner_up: int32 [prompts, steps]: the second-best id at each of those steps.
        greedy_gap: float32 [prompts, steps]: by how much the best logit exceeds the second.
    """

    top_ids: np.ndarray
    top_logits: np.ndarray
    logsumexp: np.ndarray
    rest_logsumexp: np.ndarray
    greedy_ids: np.ndarray
    greedy_runner_up: np.ndarray
    greedy_gap: np.ndarray

    @classmethod
    def from_logits(cls, forced: Iterable[np.ndarray], greedy: Iterable[np.ndarray], top: int = TOP) -> GoldenSet:
        """Condenses full logits, one prompt's at a time.

        Args:
            forced: for each prompt, float [len(sequence), vocab]: the logits after each id of its sequence.
            greedy: for each prompt, float [steps, vocab]: the logits from which the model's own greedy continuation
                was taken; the first is the one after the prompt.
            top: logits to keep.
        """
        parts = [condense(logits, top) for logits in forced]
        ids, logits, whole, rest = (np.concatenate([p[i] for p in parts]) for i in range(4))
        best = [condense(g, 2) for g in greedy]
        return cls(
            ids, logits, whole, rest,
            np.stack([b[0][:, 0] for b in best]),
            np.stack([b[0][:, 1] for b in best]),
            np.stack([b[1][:, 0] - b[1][:, 1] for b in best]),
        )  # fmt: skip


def condense(logits: np.ndarray, top: int = TOP) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits [n, vocab] -> (top ids int32 [n, top], their logits float32, logsumexp float32 [n], that of the rest).

    The reference is fp32; sums are taken in fp64 and rounded once. `top` is at most vocab.
    """
    top = min(top, logits.shape[1])
    rows = [_condense_row(row, top) for row in logits]
    ids = np.stack([r[0] for r in rows]).astype(np.int32)
    kept = np.stack([r[1] for r in rows]).astype(np.float32)
    return ids, kept, np.array([r[2] for r in rows], np.float32), np.array([r[3] for r in rows], np.float32)


def _condense_row(row: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray, float, float]:
    row = row.astype(np.float64)
    threshold = np.partition(row, len(row) - top)[len(row) - top]
    candidates = np.flatnonzero(row >= threshold)  # more than `top` where logits are equal: the lower ids win
    ids = candidates[np.lexsort((candidates, -row[candidates]))][:top]
    rest = np.delete(row, ids)
    return ids, row[ids], _logsumexp(row), _logsumexp(rest) if len(rest) else -np.inf


def _logsumexp(x: np.ndarray) -> float:
    largest = x.max()
    return float(largest + np.log(np.exp(x - largest).sum()))


@dataclass(frozen=True)
class Golden:
    """Everything in `golden/`.

    Attributes:
        vocab_size: length of a full row of logits.
        prompts: in the order of the rows.
        sets: by name; "reference" always, "weights" where the bundle's weights were run as well.
        vision: of a model that sees; None for others.
        layers: the residual stream behind each layer, where it was asked for.
    """

    vocab_size: int
    prompts: tuple[GoldenPrompt, ...]
    sets: Mapping[SetName, GoldenSet]
    vision: GoldenVision | None = None
    layers: GoldenLayers | None = None

    @property
    def positions(self) -> int:
        """Rows of each set."""
        return sum(len(p.sequence) for p in self.prompts)

    def rows(self) -> Iterator[tuple[GoldenPrompt, slice]]:
        """Each prompt with its rows."""
        start = 0
        for prompt in self.prompts:
            yield prompt, slice(start, start + len(prompt.sequence))
            start += len(prompt.sequence)

    def first(self, prompts: int | None) -> Golden:
        """Only the first prompts; all for None. Rows of the others stay, unused."""
        return self if prompts is None else replace(self, prompts=self.prompts[:prompts])

    def write(self, folder: Path) -> None:
        """Writes golden.json and the arrays into `folder`, which is made if need be."""
        folder.mkdir(exist_ok=True)
        arrays: dict[str, dict[str, ArrayFile]] = {}
        for name, values in sorted(self.sets.items()):
            arrays[name] = {key: _write_array(folder, f"{name}.{key}", getattr(values, key)) for key in _ARRAYS}
        structure = _Structure(SCHEMA_VERSION, self.vocab_size, self.prompts, arrays)
        (folder / "golden.json").write_bytes(strict_json.canonical(strict_json.encode(structure)))
        if self.vision is not None:
            self.vision.write(folder)
        if self.layers is not None:
            self.layers.write(folder)

    @classmethod
    def read(cls, folder: Path) -> Golden:
        """Reads what `write` wrote.

        Raises:
            BundleError: a file is missing, of the wrong size, or does not fit the others.
        """
        structure = _read_structure(folder / "golden.json")
        sets = {name: _read_set(folder, structure.sets[name], name) for name in SET_NAMES if name in structure.sets}
        seen, layers = GoldenVision.read(folder), GoldenLayers.read(folder)
        golden = cls(structure.vocab_size, structure.prompts, sets, seen, layers)
        _check_shapes(golden, set(structure.sets))
        return golden


# Attribute of GoldenSet -> ending of its file, which is its dtype.
_ARRAYS = {
    "top_ids": "i32", "top_logits": "f32", "logsumexp": "f32", "rest_logsumexp": "f32",
    "greedy_ids": "i32", "greedy_runner_up": "i32", "greedy_gap": "f32",
}  # fmt: skip
_DTYPES = {"i32": "<i4", "f32": "<f4"}


@dataclass(frozen=True)
class ArrayFile:
    """Where an array lies: a file beside golden.json, and its shape, rows first."""

    file: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Structure:
    """golden.json."""

    schema_version: int
    vocab_size: int
    prompts: tuple[GoldenPrompt, ...]
    sets: dict[str, dict[str, ArrayFile]] = field(default_factory=dict)


def _write_array(folder: Path, stem: str, values: np.ndarray) -> ArrayFile:
    ending = _ARRAYS[stem.split(".")[1]]
    (folder / f"{stem}.{ending}").write_bytes(np.ascontiguousarray(values, _DTYPES[ending]).tobytes())
    return ArrayFile(f"{stem}.{ending}", values.shape)


def _read_structure(path: Path) -> _Structure:
    if not path.is_file():
        raise BundleError("the bundle has no golden data", wanted="golden/golden.json", hint="export the bundle again")
    value = strict_json.parse(path.read_bytes(), "golden.json")
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError("golden.json is of an unknown schema", got=version, wanted=SCHEMA_VERSION)
    return strict_json.decode(_Structure, value, "golden.json")


def _read_set(folder: Path, files: Mapping[str, ArrayFile], name: str) -> GoldenSet:
    if set(files) != set(_ARRAYS):
        raise BundleError(f"the golden set '{name}' is incomplete", got=sorted(files), wanted=sorted(_ARRAYS))
    return GoldenSet(**{key: _read_array(folder, f"{name}.{key}", files[key]) for key in _ARRAYS})


def _read_array(folder: Path, stem: str, entry: ArrayFile) -> np.ndarray:
    ending = _ARRAYS[stem.split(".")[1]]
    if entry.file != f"{stem}.{ending}" or min(entry.shape, default=1) < 0:
        raise BundleError("golden.json names an unexpected array", got=entry, wanted=f"{stem}.{ending}")
    path, wanted = folder / entry.file, 4 * int(np.prod(entry.shape, dtype=object))
    size = path.stat().st_size if path.is_file() else None
    if size != wanted:
        raise BundleError(f"golden/{entry.file} is missing or of the wrong size", got=size, wanted=wanted)
    native = np.int32 if ending == "i32" else np.float32
    return np.fromfile(path, _DTYPES[ending]).astype(native).reshape(entry.shape)


def _check_shapes(golden: Golden, names: set[str]) -> None:
    if not names <= set(SET_NAMES) or "reference" not in names or not golden.prompts:
        raise BundleError("golden.json lacks the reference or has unknown sets", got=sorted(names), wanted=SET_NAMES)
    if any(p.picture not in (None, PICTURE) or (p.picture and golden.vision is None) for p in golden.prompts):
        raise BundleError("a golden prompt shows a picture that is not there", wanted=PICTURE)
    for prompt in golden.prompts:
        ids = prompt.ids + prompt.continuation
        if not prompt.ids or not prompt.continuation or min(ids) < 0 or max(ids) >= golden.vocab_size:
            raise BundleError(
                "a golden prompt is empty or outside the vocabulary", wanted=f"0..{golden.vocab_size - 1}"
            )
    if golden.layers is not None and golden.layers.rows[-1] >= len(golden.prompts[0].sequence):
        raise BundleError("golden layers beyond the first prompt", got=golden.layers.rows)
    if len({len(p.continuation) for p in golden.prompts}) != 1:
        raise BundleError("golden continuations differ in length")
    for name, values in golden.sets.items():
        _check_set(golden, name, values)


def _check_set(golden: Golden, name: str, values: GoldenSet) -> None:
    positions, top = golden.positions, min(TOP, golden.vocab_size)
    greedy = (len(golden.prompts), len(golden.prompts[0].continuation))
    shapes = dict.fromkeys(("top_ids", "top_logits"), (positions, top))
    wanted = {key: shapes.get(key, greedy if key.startswith("greedy") else (positions,)) for key in _ARRAYS}
    got = {key: getattr(values, key).shape for key in _ARRAYS}
    if got != wanted:
        raise BundleError(f"the golden set '{name}' does not fit its prompts", got=got, wanted=wanted)
    for key in ("top_ids", "greedy_ids", "greedy_runner_up"):
        ids = getattr(values, key)
        if ids.min() < 0 or ids.max() >= golden.vocab_size:
            raise BundleError(f"golden {name}.{key} is outside the vocabulary", wanted=f"0..{golden.vocab_size - 1}")
    for key in ("top_logits", "logsumexp", "greedy_gap"):
        if not np.isfinite(getattr(values, key)).all():
            raise BundleError(f"golden {name}.{key} holds NaN or infinity", hint="export the bundle again")
