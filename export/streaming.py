"""A transformers model whose matrices stay in their files: each is read some rows at a time, whenever it is used.

transformers' own program runs, attention, norms and all; only what multiplies with a matrix or looks rows up in one is
exchanged. A product is made some output channels at a time, so that no matrix is whole in memory as fp32. Each number
is the same sum as it would be; whether in the same order, and so to the last bit, is the BLAS's affair.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from satchel.export.checkpoint import Checkpoint
from satchel.export.families.base import DecoderConfig, Family, Joined, Rows
from satchel.export.families.tensors import CanonicalTensors
from satchel.export.ops.base import Weights
from satchel.export.palettize.expand import expand
from satchel.runtime.errors import CheckpointError
from satchel.runtime.memory import return_freed_memory

T = TypeVar("T")

WEIGHTS_A_PIECE = 1 << 21
"""8 MB in fp32: of this size pieces stay in the caches from being widened to being multiplied."""
ROWS_AT_ONCE = 64
"""Pieces are of a multiple of so many rows, which BLAS kernels work off in the same way wherever they lie."""
WORKERS = 2
ALLOW_MORE = "allow more --max-memory"

Layout = Mapping[str, list[tuple[str, int]]]
"""A parameter of transformers -> the canonical matrices that make it up, one under the other, each with its rows."""


Work = Callable[[slice], torch.Tensor]


class Pieces(Protocol):
    """Where rows come from, by transformers' name of the parameter."""

    def read(self, parameter: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:
        """float32 [stop - start, ...], contiguous, in `out` or not. May be called from several threads."""


class _Last(Generic[T]):
    """Keeps what was read last, whose rows are asked for next; it goes before another is read."""

    def __init__(self, read: Callable[[str], T]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._kept: tuple[str, T] | None = None

    def read(self, name: str) -> T:
        with self._lock:
            if self._kept is None or self._kept[0] != name:
                self._kept = None
                self._kept = name, self._read(name)
            return self._kept[1]


class CheckpointPieces:
    """The original weights, of a safetensors file by transformers' own names."""

    def __init__(self, checkpoint: Checkpoint, family: Family, config: DecoderConfig) -> None:
        self._checkpoint = checkpoint
        self._tensors = CanonicalTensors(checkpoint, family, config)
        self._as_stored = checkpoint.kind == "safetensors" and family.stand is None
        self._matrices, self._vectors = layout(family, config), stored_vectors(family, config)
        self._last = _Last(self._tensors.read)

    def read(self, parameter: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:  # noqa: D102
        if self._as_stored:
            return self._checkpoint.read(parameter, slice(start, stop), out)
        if parameter in self._vectors:
            name, rows = self._vectors[parameter]
            return self._tensors.parameter(name)[rows][start:stop]
        return _from_parts(self._matrices[parameter], start, stop, out, self._rows)

    def _rows(self, name: str, start: int, stop: int, out: np.ndarray | None) -> np.ndarray:
        if name.startswith("layers.") and self._checkpoint.kind == "gguf":
            return self._last.read(name)[start:stop]  # of a GGUF file, where rows may lie in another order
        return self._tensors.read(name, slice(start, stop), out)


class MatrixPieces:
    """Compressed matrices; one is held at a time, with a byte a code."""

    def __init__(self, weights: Weights, layout: Layout) -> None:
        self._layout, self._last = layout, _Last(weights.matrix)

    def read(self, parameter: str, start: int, stop: int, out: np.ndarray | None = None) -> np.ndarray:  # noqa: D102
        return _from_parts(self._layout[parameter], start, stop, out, self._rows)

    def _rows(self, name: str, start: int, stop: int, out: np.ndarray | None) -> np.ndarray:
        return expand(self._last.read(name), start, stop, out)


RowReader = Callable[[str, int, int, np.ndarray | None], np.ndarray]


def _from_parts(
    parts: list[tuple[str, int]], start: int, stop: int, out: np.ndarray | None, read: RowReader
) -> np.ndarray:
    """Rows of matrices that lie one under the other; in `out` where they are all of one."""
    found, first = [], 0
    for name, rows in parts:
        low, high = max(start - first, 0), min(stop - first, rows)
        if low < high:
            found.append(read(name, low, high, out if high - low == stop - start else None))
        first += rows
    return found[0] if len(found) == 1 else np.concatenate(found)


class Streamed:
    """What the modules of one model read through; `pieces` may be exchanged for those of other weights."""

    def __init__(self, pieces: Pieces) -> None:
        self.pieces = pieces
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="pieces")
        self._memory = threading.local()

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the model runs: each piece is read and multiplied by one thread, which leaves none to torch's own.

        Two threads of torch for each piece would spend most of their time waiting for each other.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(1)  # of this thread, and of those that start from now on
        try:
            yield
        finally:
            torch.set_num_threads(before)
            return_freed_memory()

    def map(
        self, work: Callable[[slice], torch.Tensor], shape: tuple[int, int]
    ) -> Iterator[tuple[slice, torch.Tensor]]:
        """work(rows) for the rows of a matrix, some at a time, in order."""
        step = max(ROWS_AT_ONCE, WEIGHTS_A_PIECE // shape[1] // ROWS_AT_ONCE * ROWS_AT_ONCE)
        pieces = [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
        return zip(pieces, self._pool.map(work, pieces), strict=True)

    def room(self, rows: int, columns: int) -> np.ndarray:
        """float32 [rows, columns] of this thread, the same memory each time: new pages cost more than what is read."""
        held = getattr(self._memory, "held", None)
        if held is None or held.size < rows * columns:
            self._memory.held = held = np.empty(rows * columns, np.float32)
        return held[: rows * columns].reshape(rows, columns)

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(cancel_futures=True)


class StreamedLinear(torch.nn.Module):
    """A torch.nn.Linear without its matrix."""

    def __init__(self, linear: torch.nn.Linear, streamed: Streamed, parameter: str) -> None:
        super().__init__()
        self.bias = linear.bias
        self._shape = (linear.out_features, linear.in_features)
        self._streamed, self._parameter = streamed, parameter

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x @ W.T + bias."""

        def product(rows: slice) -> torch.Tensor:
            room = self._streamed.room(rows.stop - rows.start, self._shape[1])
            piece = torch.from_numpy(self._streamed.pieces.read(self._parameter, rows.start, rows.stop, room))
            with torch.inference_mode():
                return torch.nn.functional.linear(x, piece, None if self.bias is None else self.bias[rows])

        y = x.new_empty(*x.shape[:-1], self._shape[0])
        for rows, part in self._streamed.map(product, self._shape):
            y[..., rows] = part
        return y


class StreamedEmbedding(torch.nn.Module):
    """A torch.nn.Embedding without its matrix; Gemma's scales what it gives."""

    def __init__(self, embedding: torch.nn.Embedding, streamed: Streamed, parameter: str) -> None:
        super().__init__()
        self._scale = getattr(embedding, "embed_scale", None)
        if self._scale is None and type(embedding) is not torch.nn.Embedding:
            raise CheckpointError("a model that cannot be streamed", got=type(embedding).__name__, hint=ALLOW_MORE)
        self._streamed, self._parameter = streamed, parameter

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """The rows of `ids`."""
        unique, place = torch.unique(ids, return_inverse=True)
        rows = [self._streamed.pieces.read(self._parameter, i, i + 1) for i in unique.tolist()]
        found = torch.from_numpy(np.concatenate(rows))[place]
        return found if self._scale is None else found * self._scale


def stream(model: Any, streamed: Streamed, tied: bool) -> Any:
    """Fills a transformers model that was made without weights: vectors are read now, matrices whenever they are used.

    Args:
        model: on torch's meta device, buffers excepted, and what is filled already.
        streamed: where the weights come from.
        tied: whether the head is the embedding.

    Raises:
        CheckpointError: the model has a parameter that is neither a linear's nor an embedding's nor a vector.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    names = {module: name for name, module in model.named_modules()}
    for module, name in names.items():
        parameter = f"{names[embedding] if tied and module is head else name}.weight"
        filled = any(not p.is_meta for p in module.parameters(recurse=False))
        if isinstance(module, torch.nn.Linear) and not filled:
            model.set_submodule(name, StreamedLinear(module, streamed, parameter))
        elif isinstance(module, torch.nn.Embedding) and not filled:
            model.set_submodule(name, StreamedEmbedding(module, streamed, parameter))
    for name, parameter in [(n, p) for n, p in model.named_parameters() if p.is_meta]:
        _fill(model, name, parameter, streamed.pieces)
    return model.eval().requires_grad_(False)


def _fill(model: Any, name: str, parameter: torch.nn.Parameter, pieces: Pieces) -> None:
    if parameter.ndim not in (1, 4):  # a vector, or a convolution, which is small
        raise CheckpointError("a model that cannot be streamed", got=name, hint=ALLOW_MORE)
    module, _, last = name.rpartition(".")
    values = torch.from_numpy(pieces.read(name, 0, len(parameter)))
    model.get_submodule(module).register_parameter(last, torch.nn.Parameter(values, requires_grad=False))


def layout(family: Family, config: DecoderConfig) -> Layout:
    """Which canonical matrices make up each parameter."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    places = family.parameters(config)
    for name, (rows, _) in config.matrix_shapes().items():
        place = places[name]
        assert isinstance(place, str | Rows), name
        stored, start = (place.name, place.start) if isinstance(place, Rows) else (place, 0)
        found.setdefault(stored, []).append((start, name, rows))
    return {stored: [part[1:] for part in sorted(parts)] for stored, parts in found.items()}


def stored_vectors(family: Family, config: DecoderConfig) -> dict[str, tuple[str, slice]]:
    """For each parameter that is a vector: the canonical vector, and which part of it."""
    found: dict[str, tuple[str, slice]] = {}
    places = family.parameters(config)
    for name, (size,) in config.vector_shapes().items():
        place = places.get(name, ())  # what a stand-in has no parameter for
        if place == ():
            continue
        assert isinstance(place, str | Joined), name
        names = place.names if isinstance(place, Joined) else (place,)
        step = size // len(names)
        found |= {stored: (name, slice(i * step, (i + 1) * step)) for i, stored in enumerate(names)}
    return found
