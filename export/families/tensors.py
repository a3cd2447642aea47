"""A checkpoint's tensors under canonical names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from satchel.export.checkpoint import Checkpoint
from satchel.export.checkpoint.gguf_file import GgufCheckpoint
from satchel.export.families.base import DecoderConfig, Family, Joined, Place, Rows, Runs, Suppression
from satchel.runtime.errors import CheckpointError

ROWS = 4096  # compared at a time
ALL = slice(None)


class CanonicalTensors:
    """Every tensor that a configuration asks for, read when it is asked for."""

    def __init__(self, checkpoint: Checkpoint, family: Family, config: DecoderConfig) -> None:
        """Checks names and shapes.

        Raises:
            CheckpointError: tensors are missing, unexpected, or of another shape than the configuration says; or a
                head that is called tied is stored with other values than the embedding.
        """
        self._checkpoint = checkpoint
        self._config = config
        self._places, self._restore, ignored = _layout(checkpoint, family, config)
        self._offset = family.norm_offset if checkpoint.kind == "safetensors" else 0.0
        self._parameter_offset = family.norm_offset
        self._norms = config.norms() if family.norm_offset else {}
        shapes: dict[str, tuple[int, ...]] = {**config.matrix_shapes(), **config.vector_shapes()}
        assert set(shapes) == set(self._places), "the family's table of names is not that of its configuration"
        stored = checkpoint.names()
        if config.tied_embeddings and family.tied_head in stored:
            _check_tied(checkpoint, family.tied_head, _names(self._places["embed_tokens"])[0])
            stored.remove(family.tied_head)
        wanted = {name for place in self._places.values() for name in _names(place)}
        _check_names(wanted, {n for n in stored if not n.endswith(ignored)})
        self._check_shapes(shapes)

    def names(self) -> list[str]:
        """Canonical names, matrices in the order of the forward pass, then vectors."""
        return [*self._config.matrix_shapes(), *self._config.vector_shapes()]

    def read(self, name: str, rows: slice = ALL, out: np.ndarray | None = None) -> np.ndarray:
        """Values of a tensor by canonical name, or of some of its rows, float32 [rows, columns] or [n].

        Rows alone are read of an embedding or head, and of any matrix of a safetensors file; a linear of a GGUF file is
        read whole, since its rows may lie there in another order.

        Raises:
            CheckpointError: NaN or infinity among them.
            KeyError: there is no such tensor.
        """
        place = self._places[name]
        if isinstance(place, Suppression):
            return place.values(self._config.vocab_size)[rows]
        if isinstance(place, Runs):
            values = self._picked(place.name, place.rows()[rows])
        elif isinstance(place, Joined):
            values = np.concatenate([self._checkpoint.read(n).reshape(-1) for n in place.names])[rows]
        elif self._restore is _as_stored or not name.startswith("layers."):
            values = self._checkpoint.read(*_rows(place, rows), out)
        else:
            values = self._restore(self._config, name, self._checkpoint.read(*_rows(place, ALL)))[rows]
        return values + np.float32(self._offset) if self._offset and name in self._norms else values

    def parameter(self, name: str) -> np.ndarray:
        """As `read`, of a vector as the reference has it: gains less what it adds to them."""
        values = self.read(name)
        return values - np.float32(self._parameter_offset) if name in self._norms else values

    def _picked(self, stored: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of a stored tensor, rising, read some thousand at a time since others lie between them."""
        values = np.empty((len(rows), *self._checkpoint.shape(stored)[1:]), np.float32)
        start = 0
        while start < len(rows):
            first = int(rows[start])
            stop = int(np.searchsorted(rows, first + ROWS))
            part = self._checkpoint.read(stored, slice(first, int(rows[stop - 1]) + 1))
            values[start:stop] = part[rows[start:stop] - first]
            start = stop
        return values

    @property
    def kind(self) -> str:
        """Which of the file formats the checkpoint is of."""
        return self._checkpoint.kind

    def stored_type(self, name: str) -> str:
        """How the numbers of a tensor are stored, as GGUF names it ("Q4_1"); "floats" where it is no GGUF file."""
        return (
            self._checkpoint.blocks(_names(self._places[name])[0])[0]
            if isinstance(self._checkpoint, GgufCheckpoint)
            else "floats"
        )

    def stored_blocks(self, name: str) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The bytes of a GGUF tensor, uint8 [rows, bytes of a row], and what undoes the conversion's order of rows."""
        assert isinstance(self._checkpoint, GgufCheckpoint)
        stored, rows = _rows(self._places[name], ALL)
        _, raw = self._checkpoint.blocks(stored)
        raw = raw[rows]
        return raw, lambda values: self._restore(self._config, name, values)

    def _check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        wanted: dict[str, tuple[int, ...]] = {}
        for name, place in self._places.items():
            for stored in _names(place):
                rows = shapes[name][0]
                if isinstance(place, Rows | Runs):  # of a fused tensor, the last part says how many rows there are
                    stop = place.stop if isinstance(place, Rows) else int(place.rows()[-1]) + 1
                    rows = max(stop, *wanted.get(stored, (0,))[:1])
                wanted[stored] = (rows // len(_names(place)), *shapes[name][1:])
        flat = {stored for place in self._places.values() if isinstance(place, Joined) for stored in place.names}
        for stored, shape in wanted.items():
            found = self._checkpoint.shape(stored)
            if found != shape and not (stored in flat and (math.prod(found),) == shape):
                raise CheckpointError(
                    f"'{stored}' has another shape than the configuration says",
                    got=list(found),
                    wanted=list(shape),
                    hint="config.json and the weights are of different models",
                )


Restore = Callable[[DecoderConfig, str, np.ndarray], np.ndarray]


def _layout(
    checkpoint: Checkpoint, family: Family, config: DecoderConfig
) -> tuple[Mapping[str, Place], Restore, tuple[str, ...]]:
    """(canonical name -> where it is stored, what undoes a conversion, names to pass over)."""
    if checkpoint.kind == "safetensors":
        return family.tensor_names(config), _as_stored, family.ignored
    layout = family.gguf
    if layout is None:
        raise CheckpointError(f"GGUF files of the family {family.name} are not read", wanted="safetensors")
    stored, fused = set(checkpoint.names()), layout.fused(config) if layout.fused else {}
    found = {name: part for name, part in fused.items() if part.name in stored}
    return {**layout.tensor_names(config), **found}, layout.restore, layout.ignored


def _names(place: Place) -> tuple[str, ...]:
    """The stored tensors that a tensor is in."""
    if isinstance(place, Joined):
        return place.names
    if isinstance(place, Suppression):
        return ()
    return (place.name if isinstance(place, Rows | Runs) else place,)


def _rows(place: Place, rows: slice) -> tuple[str, slice]:
    """Name of the stored tensor, and which of its rows are those rows of ours."""
    assert not isinstance(place, Joined | Runs | Suppression), "neither vectors in pieces nor interleaved rows"
    if not isinstance(place, Rows):
        return place, rows
    start, stop, _ = rows.indices(place.stop - place.start)
    return place.name, slice(place.start + start, place.start + stop)


def _as_stored(config: DecoderConfig, name: str, values: np.ndarray) -> np.ndarray:
    return values


def _check_names(wanted: set[str], stored: set[str]) -> None:
    missing, unexpected = sorted(wanted - stored), sorted(stored - wanted)
    if missing or unexpected:
        got = {"missing": _some(missing), "unexpected": _some(unexpected)}
        raise CheckpointError(
            "the checkpoint's tensors are not those of its configuration",
            got="; ".join(f"{k}: {v}" for k, v in got.items() if v),
            wanted=f"{len(wanted)} tensors",
            hint="config.json and the weights are of different models, or the download is incomplete",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _check_tied(checkpoint: Checkpoint, head: str, embedding: str) -> None:
    """A tied head may be stored as well, but only with the embedding's values."""
    shape = checkpoint.shape(embedding)
    pieces = [slice(i, i + ROWS) for i in range(0, shape[0], ROWS)] if checkpoint.shape(head) == shape else [None]
    if any(p is None or not np.array_equal(checkpoint.read(head, p), checkpoint.read(embedding, p)) for p in pieces):
        raise CheckpointError(
            f"config.json ties the head to the embedding, but '{head}' holds other values",
            wanted=f"the values of '{embedding}', or no '{head}'",
            hint='if the stored head is meant, set "tie_word_embeddings": false in config.json',
        )
