"""All matrices of a model through a recipe, a few at a time, into a WeightStore."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

import numpy as np
from joblib import Parallel, delayed

from satchel.export.families.base import DecoderConfig
from satchel.export.palettize.affine import affine
from satchel.export.palettize.allocate import allocate
from satchel.export.palettize.candidates import Candidate, candidates
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import ROWS_A_GROUP, int8_rows, palettize
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tables import int8_pieces
from satchel.export.palettize.tensors import Matrix, PlainTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.memory import return_freed_memory


class ReadTensor(Protocol):
    """Where the weights come from."""

    def __call__(self, name: str, rows: slice = ..., /) -> np.ndarray:
        """Canonical name -> float32 values, all rows or some."""


def scheme_of(name: str, recipe: Recipe) -> str:
    """The scheme of one matrix: the recipe's, but for the embedding, the head, and what it keeps wide."""
    if name in ("embed_tokens", "lm_head") and recipe.weights not in ("fp16", "fp32"):
        return recipe.embedding
    if recipe.weights == "palette" and name.rpartition(".")[2] in recipe.wide:
        return "int8"
    return recipe.weights


def compress_matrix(name: str, w: np.ndarray, statistics: Mapping[str, np.ndarray], recipe: Recipe) -> Matrix:
    """One matrix, float32 [rows, columns], as the recipe says.

    Args:
        name: canonical.
        w: its values.
        statistics: canonical name -> mean square of each input channel, float32 [columns]; a matrix that is not in it
            weighs all its columns alike.
        recipe: what to do.
    """
    scheme, h = scheme_of(name, recipe), statistics.get(name)
    if scheme in ("fp16", "fp32"):
        return PlainTensor(w.astype(np.float16 if scheme == "fp16" else np.float32))
    if scheme == "int8":
        return int8_rows(w)
    if scheme == "int4" and w.shape[1] % recipe.block == 0:
        return affine(w, h, block=recipe.block, symmetric=recipe.symmetric, scale_dtype=recipe.scale_dtype)
    if scheme == "int4":
        return int8_rows(w)  # a row that is no multiple of the block has no 4-bit kernel in any runtime
    groups = w.shape[0] // ROWS_A_GROUP if recipe.lut_groups == "rows16" and w.shape[0] % ROWS_A_GROUP == 0 else 1
    return palettize(w, h, bits=recipe.bits, groups=groups, rounds=recipe.rounds)


def compress_model(
    read: ReadTensor,
    config: DecoderConfig,
    statistics: Mapping[str, np.ndarray],
    recipe: Recipe,
    store: WeightStore,
    *,
    done: Collection[str] = (),
    workers: int = 2,
    progress: Progress = silent,
) -> None:
    """Fills `store` with every matrix and vector of the model.

    Args:
        read: called from `workers` threads.
        config: says which tensors there are.
        statistics: see compress_matrix.
        recipe: what to do.
        store: where the results go.
        done: matrices that it has already.
        workers: matrices that are in memory at the same time.
        progress: told after each matrix.
    """
    return_freed_memory()  # of calibration, before the largest matrices are read
    for name in config.vector_shapes():
        store.put_vector(name, read(name))

    shapes = config.matrix_shapes()

    def work(name: str) -> str:
        if name in ("embed_tokens", "lm_head") and scheme_of(name, recipe) == "int8":
            store.put_matrix(name, int8_pieces(lambda rows: read(name, rows), shapes[name]))
        else:
            store.put_matrix(name, compress_matrix(name, read(name), statistics, recipe))
        return name

    names = [name for name in shapes if name not in done]
    done = Parallel(n_jobs=workers, prefer="threads", return_as="generator_unordered")(delayed(work)(n) for n in names)
    for count, _ in enumerate(done, 1):
        progress(f"Compressing weights ({recipe.weights})", count, len(names))
    return_freed_memory()


def compress_layers(
    read: ReadTensor,
    config: DecoderConfig,
    layers: Iterable[Mapping[str, Curvature]],
    stores: Mapping[Recipe, WeightStore],
    *,
    workers: int = 2,
    progress: Progress = silent,
) -> None:
    """Fills a store for each recipe, with the curvature of every linear at hand.

    Args:
        read: canonical name -> float32 values.
        config: says which tensors there are.
        layers: for each layer in any order: canonical name -> curvature; one is held at a time.
        stores: where the results of each recipe go. All recipes share one pass over the curvatures.
        workers: matrices that are in memory at the same time.
        progress: told after each matrix that has no curvature.
    """
    losses: dict[Recipe, dict[str, dict[int, float]]] = {recipe: {} for recipe in stores}
    for layer in layers:
        for recipe, store in stores.items():
            losses[recipe] |= _compress_layer(read, layer, recipe, store, workers)
    shapes = config.matrix_shapes()
    for recipe, store in stores.items():
        sizes = {name: shapes[name][0] * shapes[name][1] for name in losses[recipe]}
        for name, bits in allocate(losses[recipe], sizes, recipe.average_bits).items():
            store.choose(name, bits)
        compress_model(read, config, {}, recipe, store, done=losses[recipe], workers=workers, progress=progress)


def _compress_layer(
    read: ReadTensor, layer: Mapping[str, Curvature], recipe: Recipe, store: WeightStore, workers: int
) -> dict[str, dict[int, float]]:
    """Stores every form of the linears of a layer; name -> bits -> loss."""

    def work(name: str) -> list[Candidate]:
        return candidates(read(name), layer[name], recipe)

    found = Parallel(n_jobs=workers, prefer="threads")(delayed(work)(name) for name in layer)
    for name, forms in zip(layer, found, strict=True):
        for form in forms:
            store.put_candidate(name, form.bits, form.matrix)
    return {name: {f.bits: f.loss for f in forms} for name, forms in zip(layer, found, strict=True)}
