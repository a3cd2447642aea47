"""The matrices of a vision tower through a recipe, into the store of the text model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from satchel.export.palettize.compress import compress_matrix
from satchel.export.palettize.spec import Recipe
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import Matrix, PlainTensor
from satchel.export.progress import Progress, silent
from satchel.export.vision.checkpoint import VisionTensors
from satchel.export.vision.config import VisionConfig
from satchel.export.vision.prompts import QUESTIONS, drawn
from satchel.export.vision.torch import features
from satchel.runtime.golden import TOP
from satchel.runtime.golden_vision import MOST_ROWS
from satchel.runtime.images import ImagePreparation, prepare

UNSETTLED = {"palette": 6, "int4": 8}
"""Bits of its linears where those of the text model's are chosen by what each was measured to cost in text: what a
picture loses is not among that, so that these keep more."""
PICTURES, SIDE = 4, 256
"""Synthetic pictures that calibrate it, and their edges in pixels."""
PROGRAM_BYTES, HEAD_BYTES, GOLDEN_BYTES = 35_000, 7_000, 200_000
"""Of a layer in the program and the manifest, for each head of it, and of the golden picture. The first two are Core
ML's for a decoder's layer (bundle_size.py), which has more in it: not measured for towers."""
COLUMNS = 16
"""Columns that compressed matrices have a multiple of, in every runtime."""


def compress_vision(
    tensors: VisionTensors,
    config: VisionConfig,
    how: ImagePreparation,
    recipe: Recipe,
    store: WeightStore,
    progress: Progress = silent,
) -> None:
    """Fills `store` with every matrix and vector of the tower and the projector that it does not have yet.

    Args:
        tensors: of the checkpoint.
        config: says which there are.
        how: pictures are prepared, for those that calibrate.
        recipe: of the text model.
        store: where the results go.
        progress: told after each matrix.
    """
    missing = [name for name in config.matrix_shapes() if not store.has(name)]
    statistics = mean_squares(tensors, config, how) if missing and recipe.calibrated else {}
    for name in config.vector_shapes():
        if not store.has(name):
            store.put_vector(name, tensors.read(name))
    for count, name in enumerate(missing, 1):
        store.put_matrix(name, compress_vision_matrix(name, tensors.read(name), statistics.get(name), recipe))
        progress(f"Compressing the vision tower ({recipe.weights})", count, len(missing))


def compress_vision_matrix(name: str, w: np.ndarray, h: np.ndarray | None, recipe: Recipe) -> Matrix:
    """One matrix, as compress_matrix does it; pixels themselves go through halves, not codes."""
    if recipe.weights == "fp32":
        return PlainTensor(w)
    if recipe.weights == "fp16" or name == "vision.patch_embedding" or w.shape[1] % COLUMNS:
        return PlainTensor(w.astype(np.float16))
    known = {"widths": (_settled(name, recipe),), "overrides": ()} if recipe.weights in UNSETTLED else {}
    return compress_matrix(name, w, h, replace(recipe, budget=None, effort="low", **known))  # type: ignore[arg-type]


def vision_bytes(config: VisionConfig, recipe: Recipe, shown: int) -> int:
    """Bytes that the tower and the projector take in a bundle, somewhat more than less: for budgets of size.

    Args:
        config: which matrices there are.
        recipe: of the text model.
        shown: rows of the golden picture, which are part of the golden prompts.
    """
    numbers = 4 if recipe.weights == "fp32" else 2
    total = sum(4 * size for (size,) in config.vector_shapes().values())
    for name, (rows, columns) in config.matrix_shapes().items():
        if recipe.weights in ("fp16", "fp32") or name == "vision.patch_embedding" or columns % COLUMNS:
            total += numbers * rows * columns
        else:
            bits = _settled(name, recipe) if recipe.weights in UNSETTLED else 8
            blocks = -(-columns // recipe.block) if recipe.weights == "int4" else 1
            total += rows * columns * bits // 8 + 4 * rows * blocks + (4 << bits)
    program = (config.layers + 3) * (PROGRAM_BYTES + HEAD_BYTES * config.heads)
    golden = len(QUESTIONS) * shown * (2 * 4 * (2 * TOP + 2) + 20)  # two sets of arrays, and a line for each id
    return total + program + GOLDEN_BYTES + golden + 2 * 4 * MOST_ROWS * config.projector[-1]


def _settled(name: str, recipe: Recipe) -> int:
    bits = recipe.widths_of(name)
    return bits[0] if len(bits) == 1 else UNSETTLED[recipe.weights]


def mean_squares(tensors: VisionTensors, config: VisionConfig, how: ImagePreparation) -> Mapping[str, np.ndarray]:
    """Mean square of each input channel of every linear over synthetic pictures, float32 [columns]."""
    sums: dict[str, torch.Tensor] = {}
    rows: dict[str, int] = {}

    def seen(name: str, x: torch.Tensor) -> None:
        squares = x.reshape(-1, x.shape[-1]).square().sum(0, dtype=torch.float64)
        sums[name], rows[name] = sums.get(name, 0) + squares, rows.get(name, 0) + x[..., 0].numel()

    for seed in range(PICTURES):
        pixels = prepare(drawn(seed, SIDE, SIDE), how).pixels[-1:]
        features(config, tensors, pixels, on_linear=seen)
    return {name: (total / rows[name]).to(torch.float32).numpy() for name, total in sums.items()}
