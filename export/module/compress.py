"""The palette of a module: each weight through export/palettize, once for all formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from satchel.devices.rulebook import rule
from satchel.export.module.program import Program
from satchel.export.module.weights import Weight
from satchel.export.palettize.fit import int8_rows, palettize
from satchel.export.palettize.spec import PALETTE_WIDTHS
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import Matrix, PalettizedTensor, PlainTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import UsageError

BITS = 4
LIMITS = "CH42"
"""The rule that says what is small and what is narrow."""


@dataclass(frozen=True)
class ModuleRecipe:
    """What becomes of a module's weights.

    Attributes:
        weights: "palette", "int8", "fp16" or "fp32".
        bits: of a palette's index.
        widths: (name of a weight, bits): those that have other bits; 16 and 32 keep floats.
    """

    weights: str = "palette"
    bits: int = BITS
    widths: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
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


def compress_weight(values: np.ndarray, h: np.ndarray | None, bits: int) -> Matrix:
    """One matrix, float32 [rows, columns], with so many bits; `h` is the mean square of each column's input."""
    if bits >= 16:
        return PlainTensor(values.astype(np.float16 if bits == 16 else np.float32))
    return int8_rows(values) if bits == 8 else palettize(values, h, bits=bits)


def compress(
    program: Program,
    weights: Sequence[Weight],
    statistics: Mapping[str, np.ndarray],
    recipe: ModuleRecipe,
    store: WeightStore,
    progress: Progress = silent,
) -> None:
    """Puts every weight's matrix into `store`.

    Raises:
        UsageError: the recipe names a weight that there is not.
    """
    known = {weight.name for weight in weights}
    if unknown := sorted(set(recipe.settled) - known):
        raise UsageError("bits for weights that there are not", got=unknown, wanted=sorted(known))
    for done, weight in enumerate(weights, 1):
        values = weight.matrix(program.value(weight.name).float().numpy())
        check_finite(weight.name, values)
        store.put_matrix(weight.name, compress_weight(values, statistics.get(weight.name), usual_bits(weight, recipe)))
        progress(f"Compressing weights ({recipe.weights})", done, len(weights))


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
