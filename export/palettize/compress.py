"""All matrices of a model through a recipe, a few at a time, into a WeightStore."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from joblib import Parallel, delayed

from satchel.export.families.base import DecoderConfig
from satchel.export.palettize.affine import affine
from satchel.export.palettize.fit import ROWS_A_GROUP, int8_rows, palettize
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import Matrix, PlainTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.memory import return_freed_memory

ReadTensor = Callable[[str], np.ndarray]


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
    workers: int = 2,
    progress: Progress = silent,
) -> None:
    """Fills `store` with every matrix and vector of the model.

    Args:
        read: canonical name -> float32 values; called once for each tensor, from `workers` threads.
        config: says which tensors there are.
        statistics: see compress_matrix.
        recipe: what to do.
        store: where the results go.
        workers: matrices that are in memory at the same time.
        progress: told after each matrix.
    """
    return_freed_memory()  # of calibration, before the largest matrices are read
    for name in config.vector_shapes():
        store.put_vector(name, read(name))

    def work(name: str) -> str:
        store.put_matrix(name, compress_matrix(name, read(name), statistics, recipe))
        return name

    names = list(config.matrix_shapes())
    done = Parallel(n_jobs=workers, prefer="threads", return_as="generator_unordered")(delayed(work)(n) for n in names)
    for count, _ in enumerate(done, 1):
        progress(f"Compressing weights ({recipe.weights})", count, len(names))
    return_freed_memory()
