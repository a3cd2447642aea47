"""A checkpoint's tensors under canonical names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from satchel.export.checkpoint import Checkpoint
from satchel.export.checkpoint.gguf_file import GgufCheckpoint
from satchel.export.families.base import DecoderConfig, Family
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
        self._names, self._rows, self._restore, ignored = _layout(checkpoint, family, config)
        shapes: dict[str, tuple[int, ...]] = {**config.matrix_shapes(), **config.vector_shapes()}
        assert set(shapes) == set(self._names), "the family's table of names is not that of its configuration"
        stored = checkpoint.names()
        if config.tied_embeddings and family.tied_head in stored:
            _check_tied(checkpoint, family.tied_head, self._names["embed_tokens"])
            stored.remove(family.tied_head)
        _check_names(set(self._names.values()), {n for n in stored if not n.endswith(ignored)})
        self._check_shapes(shapes)

    def names(self) -> list[str]:
        """Canonical names, matrices in the order of the forward pass, then vectors."""
        return [*self._config.matrix_shapes(), *self._config.vector_shapes()]

    def read(self, name: str, rows: slice = ALL) -> np.ndarray:
        """Values of a tensor by canonical name, or of some of its rows, float32 [rows, columns] or [n].

        Rows alone are read of an embedding or head, and of any matrix of a safetensors file; a linear of a GGUF file is
        read whole, since its rows may lie there in another order.

        Raises:
            CheckpointError: NaN or infinity among them.
            KeyError: there is no such tensor.
        """
        if self._restore is _as_stored or not name.startswith("layers."):
            return self._checkpoint.read(self._names[name], rows)
        values = self._checkpoint.read(self._names[name], self._rows.get(name, ALL))
        return self._restore(self._config, name, values)[rows]

    @property
    def kind(self) -> str:
        """Which of the file formats the checkpoint is of."""
        return self._checkpoint.kind

    def stored_type(self, name: str) -> str:
        """How the numbers of a tensor are stored, as GGUF names it ("Q4_1"); "floats" where it is no GGUF file."""
        return (
            self._checkpoint.blocks(self._names[name])[0] if isinstance(self._checkpoint, GgufCheckpoint) else "floats"
        )

    def stored_blocks(self, name: str) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The bytes of a GGUF tensor, uint8 [rows, bytes of a row], and what undoes the conversion's order of rows."""
        assert isinstance(self._checkpoint, GgufCheckpoint)
        _, raw = self._checkpoint.blocks(self._names[name])
        raw = raw[self._rows.get(name, slice(None))]
        return raw, lambda values: self._restore(self._config, name, values)

    def _check_shapes(self, shapes: dict[str, tuple[int, ...]]) -> None:
        wanted = {stored: shapes[name] for name, stored in self._names.items()}
        for name, rows in self._rows.items():  # of a fused tensor, the last part says how many rows there are
            stored = self._names[name]
            wanted[stored] = (max(wanted[stored][0], rows.stop), *wanted[stored][1:])
        for stored, shape in wanted.items():
            if self._checkpoint.shape(stored) != shape:
                raise CheckpointError(
                    f"'{stored}' has another shape than the configuration says",
                    got=list(self._checkpoint.shape(stored)),
                    wanted=list(shape),
                    hint="config.json and the weights are of different models",
                )


Restore = Callable[[DecoderConfig, str, np.ndarray], np.ndarray]


def _layout(
    checkpoint: Checkpoint, family: Family, config: DecoderConfig
) -> tuple[dict[str, str], dict[str, slice], Restore, tuple[str, ...]]:
    """(canonical name -> stored name, -> rows of it if not all, what undoes a conversion, names to pass over)."""
    if checkpoint.kind == "safetensors":
        return family.tensor_names(config), {}, _as_stored, family.ignored
    layout = family.gguf
    if layout is None:
        raise CheckpointError(f"GGUF files of the family {family.name} are not read", wanted="safetensors")
    stored, fused = set(checkpoint.names()), layout.fused(config) if layout.fused else {}
    fused = {name: part for name, part in fused.items() if part.name in stored}
    names = layout.tensor_names(config) | {name: part.name for name, part in fused.items()}
    return names, {n: slice(p.start, p.stop) for n, p in fused.items()}, layout.restore, layout.ignored


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
