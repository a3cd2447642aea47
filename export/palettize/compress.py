"""All matrices of a model through a recipe, a few at a time, into a WeightStore."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Protocol

import numpy as np

from satchel.export.families.base import DecoderConfig
from satchel.export.palettize.affine import affine
from satchel.export.palettize.candidates import Candidate, candidates, lut_groups
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import int8_pieces, int8_rows, palettize
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import Matrix, PlainTensor
from satchel.export.parallel import Workers
from satchel.export.progress import Progress, silent
from satchel.runtime.memory import return_freed_memory


class ReadTensor(Protocol):
    """Where the weights come from."""

    def __call__(self, name: str, rows: slice = ..., /) -> np.ndarray:
        """Canonical name -> float32 values, all rows or some."""


TABLES = ("embed_tokens", "lm_head")


def scheme_of(name: str, recipe: Recipe) -> tuple[str, int]:
    """The scheme of one matrix and its bits: the recipe's, but for the embedding and the head."""
    if name in TABLES and recipe.weights not in ("fp16", "fp32"):
        return recipe.embedding, 8
    (bits,) = recipe.widths_of(name)
    return ("int8" if recipe.calibrated and bits == 8 else recipe.weights), bits


def compress_matrix(name: str, w: np.ndarray, h: np.ndarray | None, recipe: Recipe) -> Matrix:
    """One matrix, float32 [rows, columns], as the recipe says, each weight rounded on its own.

    Args:
        name: canonical.
        w: its values.
        h: mean square of each input channel, float32 [columns]; None weighs all columns alike.
        recipe: what to do; it leaves this matrix one width.
    """
    scheme, bits = scheme_of(name, recipe)
    if scheme in ("fp16", "fp32"):
        return PlainTensor(w.astype(np.float16 if scheme == "fp16" else np.float32))
    if scheme == "palette":
        return palettize(w, h, bits=bits, groups=lut_groups(w.shape[0], recipe), rounds=recipe.rounds)
    if scheme == "int4" and w.shape[1] % recipe.block == 0:
        symmetric = recipe.symmetric or recipe.lacks_zero_points(name)
        return affine(w, h, block=recipe.block, symmetric=symmetric, scale_dtype=recipe.scale_dtype)
    return int8_rows(w)  # for int4 too: a row that is no multiple of the block has no 4-bit kernel in any runtime


def compress_model(
    read: ReadTensor,
    config: DecoderConfig,
    statistics: Mapping[str, np.ndarray],
    recipe: Recipe,
    store: WeightStore,
    *,
    workers: Workers = Workers(),  # noqa: B008  # frozen
    progress: Progress = silent,
) -> None:
    """Fills `store` with every matrix and vector of the model that it does not have yet.

    Args:
        read: called once for each tensor, but twice for the rows of an embedding or head.
        config: says which tensors there are.
        statistics: canonical name -> mean square of each input channel, see compress_matrix.
        recipe: what to do.
        store: where the results go.
        workers: who does it.
        progress: told after each matrix.
    """
    return_freed_memory()  # of calibration, before the largest matrices are read
    for name in config.vector_shapes():
        if not store.has(name):
            store.put_vector(name, read(name))
    names = [name for name in config.matrix_shapes() if not store.has(name)]
    large = [name for name in names if name in TABLES and scheme_of(name, recipe)[0] == "int8"]
    names = [*large, *(name for name in names if name not in large)]
    calls = ((name, read(name), statistics.get(name), recipe) for name in names[len(large) :])
    tables = (int8_pieces(partial(read, name), config.matrix_shapes()[name]) for name in large)
    found = zip(names, chain(tables, workers.map(compress_matrix, calls)), strict=True)
    for count, (name, matrix) in enumerate(found, 1):
        store.put_matrix(name, matrix)
        return_freed_memory()
        progress(f"Compressing weights ({recipe.weights})", count, len(names))


def store_candidates(
    read: ReadTensor,
    layers: Iterable[Mapping[str, Curvature]],
    wanted: Mapping[Recipe, Mapping[str, tuple[str, ...]]],
    stores: Mapping[Recipe, WeightStore],
    *,
    workers: Workers = Workers(),  # noqa: B008  # frozen
) -> None:
    """Stores forms of linears, with what each costs; what a store has already is not made again.

    Args:
        read: canonical name -> float32 values.
        layers: for each layer in any order: canonical name -> curvature; one is held at a time.
        wanted: for each recipe: canonical name -> forms. All recipes share one pass over the curvatures.
        stores: where the forms under each recipe go.
        workers: who does it.
    """
    for layer in layers:
        pairs = [(name, recipe) for name in layer for recipe in stores]
        missing = ((name, recipe, stores[recipe].lacking(name, wanted[recipe][name])) for name, recipe in pairs)
        calls = [call for call in missing if call[2]]
        arguments = ((read(name), layer[name], recipe, forms) for name, recipe, forms in calls)
        for (name, recipe, _), found in zip(calls, workers.map(candidates, arguments), strict=True):
            _put(stores[recipe], name, found)


def _put(store: WeightStore, name: str, found: list[Candidate]) -> None:
    for candidate in found:
        store.put_candidate(name, candidate)
