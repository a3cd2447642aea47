"""The palette of a module: each weight through export/palettize, once for all formats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from satchel.devices.rulebook import rule
from satchel.export.module.program import Inputs, Program
from satchel.export.module.sensitive import losses, sensitive
from satchel.export.module.statistics import curvatures, mean_squares
from satchel.export.module.weights import Weight
from satchel.export.palettize import gptq
from satchel.export.palettize.candidates import SWEEPS
from satchel.export.palettize.fit import int8_rows, palettize
from satchel.export.palettize.refine import refine_palette
from satchel.export.palettize.spec import PALETTE_WIDTHS, Effort
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import Matrix, PalettizedTensor, PlainTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import UsageError

BITS = 4
ROUNDS = 3
"""Refits of LUT and row scales that follow k-means."""
LIMITS = "CH42"
"""The rule that says what is small and what is narrow."""


@dataclass(frozen=True)
class ModuleRecipe:
    """What becomes of a module's weights.

    Attributes:
        weights: "palette", "int8", "fp16" or "fp32".
        bits: of a palette's index.
        widths: (name of a weight, bits): those that have other bits; 16 and 32 keep floats.
        effort: "low" weighs columns by their mean squares; "normal" lets later columns make up for the errors of
            earlier ones (GPTQ), and lets what is sensitive keep 8 bits (sensitive.py); "high" refines longer.
    """

    weights: str = "palette"
    bits: int = BITS
    widths: tuple[tuple[str, int], ...] = ()
    effort: Effort = "normal"

    def __post_init__(self) -> None:
        if self.effort not in SWEEPS:
            raise UsageError("unknown effort", got=self.effort, wanted=", ".join(SWEEPS))
        for bits in (self.bits, *(b for _, b in self.widths)):
            if bits not in (*PALETTE_WIDTHS, 16, 32):
                raise UsageError("a number of bits that there is not", got=bits, wanted=(*PALETTE_WIDTHS, 16, 32))

    @cached_property
    def settled(self) -> Mapping[str, int]:
        """Name -> bits."""
        return dict(self.widths)


def usual_bits(weight: Weight, recipe: ModuleRecipe) -> int:
    """The bits of a weight: 1 to 6 a palette, 8 codes with a scale a row, 16 and 32 floats.

    What has few numbers stays fp16; embeddings, narrow rows, depthwise convolutions and those of a picture's or a
    sound's few channels keep 8 bits, since there each number counts for much, or rows are read one by one.
    """
    if recipe.weights in ("fp16", "fp32"):
        return int(recipe.weights[2:])
    if weight.name in recipe.settled:
        return recipe.settled[weight.name]
    limits = rule(LIMITS)
    if weight.size < limits.number("small"):
        return 16
    if recipe.weights == "int8" or "embedding" in weight.kinds or weight.matrix_shape[1] < limits.number("narrow_row"):
        return 8
    few = "convolution" in weight.kinds and weight.shape[1] <= limits.number("few_channels")
    return 8 if few else recipe.bits


@dataclass(frozen=True)
class Known:
    """What is known of a weight's input.

    Attributes:
        squares: float32 [columns], mean squares; None where nothing is.
        curvature: float32 [columns, columns], E[x x']; None where it was not measured.
    """

    squares: np.ndarray | None = None
    curvature: np.ndarray | None = None


def compress_weight(values: np.ndarray, known: Known, bits: int, effort: Effort = "low") -> Matrix:
    """One matrix, float32 [rows, columns], with so many bits."""
    if bits >= 16:
        return PlainTensor(values.astype(np.float16 if bits == 16 else np.float32))
    if bits == 8:
        return int8_rows(values)
    if known.curvature is None:
        return palettize(values, known.squares, bits=bits)
    found = gptq.palette(values, known.curvature, bits=bits, groups=1, rounds=ROUNDS)
    return refine_palette(values, known.curvature, found, SWEEPS[effort]) if SWEEPS[effort] else found


def compress(
    program: Program,
    weights: Sequence[Weight],
    examples: Sequence[Inputs],
    recipe: ModuleRecipe,
    store: WeightStore,
    progress: Progress = silent,
) -> None:
    """Puts every weight's matrix into `store`.

    Args:
        program: in fp32.
        weights: of it.
        examples: inputs that activations are measured on.
        recipe: what to do.
        store: where the results go.
        progress: told after each matrix.

    Raises:
        UsageError: the recipe names a weight that there is not.
    """
    names = {weight.name for weight in weights}
    if unknown := sorted(set(recipe.settled) - names):
        raise UsageError("bits for weights that there are not", got=unknown, wanted=sorted(names))
    for done, (weight, known) in enumerate(_known(program, weights, examples, recipe), 1):
        values = weight.matrix(program.value(weight.name).float().numpy())
        check_finite(weight.name, values)
        store.put_matrix(weight.name, compress_weight(values, known, usual_bits(weight, recipe), recipe.effort))
        progress(f"Compressing weights ({recipe.weights})", done, len(weights))
    if recipe.effort != "low":
        free = [w for w in weights if usual_bits(w, recipe) < 8 and w.name not in recipe.settled]
        for weight in sensitive(free, losses(program, free, store, examples)):
            store.put_matrix(weight.name, int8_rows(weight.matrix(program.value(weight.name).float().numpy())))


def _known(
    program: Program, weights: Sequence[Weight], examples: Sequence[Inputs], recipe: ModuleRecipe
) -> Iterator[tuple[Weight, Known]]:
    """Each weight, and as much of its input as its form and the effort ask for."""
    palettes = [weight for weight in weights if usual_bits(weight, recipe) < 8]
    yield from ((weight, Known()) for weight in weights if usual_bits(weight, recipe) >= 8)
    squares = mean_squares(program, palettes, examples) if palettes else {}
    if recipe.effort == "low":
        yield from ((weight, Known(squares.get(weight.name))) for weight in palettes)
    else:
        for weight, curvature in curvatures(program, palettes, examples):
            yield weight, Known(squares.get(weight.name), curvature)


def check_finite(name: str, values: np.ndarray) -> None:
    """Raises UsageError for NaN, infinities, and what fp16 cannot hold."""
    largest = float(np.abs(values).max()) if values.size else 0.0
    if not np.isfinite(largest) or largest > np.finfo(np.float16).max:
        raise UsageError("a weight that fp16 cannot hold", got=f"{largest} in {name}", wanted="up to 65504")


def restored(program: Program, weights: Sequence[Weight], store: WeightStore) -> Program:
    """The program with the weights as every format will have them, dequantized to fp32."""
    import torch

    from satchel.export.module.program import assign

    found = program.copy()
    for weight in weights:
        values = weight.parameter(store.matrix(weight.name).dequantize())
        assign(found.graph, weight.name, torch.from_numpy(np.ascontiguousarray(values)))
    return found


def is_palette(matrix: Matrix) -> bool:
    """Whether a matrix is codes, with a scale for each row."""
    return isinstance(matrix, PalettizedTensor)
