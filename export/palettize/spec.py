"""Recipes: what to do to each matrix, as data.

A recipe is a frozen record that can be written down and compared. Statistics of the activations are gathered in one
place (calibrate.py) and the fitting functions take them as plain arrays, so a better recipe replaces fit.py alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from satchel.runtime.errors import UsageError

WeightsName = Literal["palette", "int4", "int8", "fp16", "fp32", "source"]
LutGroups = Literal["tensor", "rows16"]
ScaleDtype = Literal["float16", "bfloat16"]
Effort = Literal["low", "normal"]


@dataclass(frozen=True)
class Calibration:
    """How activation statistics are gathered for `effort="low"`.

    More and longer sequences did not help SmolLM2: KL 0.199 and 0.205 for two seeds of 16 x 64 tokens, 0.209 for
    32 x 64, 0.224 for 48 x 96. Perhaps since the first position of a sequence, whose activations are by far the
    largest, counts for less in them; that was not examined.

    Attributes:
        sequences: sequences that the model generates, in one batch.
        length: tokens of each, the start included.
        temperature: of the sampling.
        seed: of the sampling.
    """

    sequences: int = 16
    length: int = 64
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Recipe:
    """How the matrices of a model are compressed.

    Attributes:
        weights: the scheme of the linears: "palette" (a LUT of 2**bits int8 entries and a scale a row), "int4" (affine,
            with a scale and a zero point for each `block` weights), "int8" (a scale a row), "fp16", "fp32",
            "source" (a GGUF file's own codes as they are; see source_codes.py).
        bits: of a palette.
        lut_groups: one LUT for the whole tensor, or one for each 16 rows.
        block: weights that share an affine scale.
        symmetric: affine codes without zero points, as XNNPACK wants them.
        scale_dtype: what affine scales are rounded to.
        rounds: alternations of k-means and the least-squares refit of the row scales.
        wide: last parts of the names of linears that a palette keeps at 8 bits: few weights that cost much.
        embedding: the scheme of the embedding and the head; 8 bits since 4 doubled the KL.
        effort: "low" weighs columns by their mean square and rounds each weight on its own; "normal" measures the
            curvature and lets later columns make up for the errors of earlier ones (GPTQ).
        choices: bits that a matrix of a palette may get beyond "low"; 8 stands for a scale a row without a LUT.
        average_bits: of all linears together, scales not counted; how it is spent follows from the measured losses.
    """

    weights: WeightsName = "palette"
    bits: int = 4
    lut_groups: LutGroups = "tensor"
    block: int = 32
    symmetric: bool = False
    scale_dtype: ScaleDtype = "float16"
    rounds: int = 3
    wide: tuple[str, ...] = ()
    embedding: Literal["int8", "fp16", "fp32"] = "int8"
    effort: Effort = "low"
    choices: tuple[int, ...] = (4, 8)
    average_bits: float = 4.45

    def __post_init__(self) -> None:
        if self.weights not in get_args(WeightsName):
            raise UsageError("unknown weight scheme", got=self.weights, wanted=", ".join(get_args(WeightsName)))
        if self.effort not in get_args(Effort):
            raise UsageError("unknown effort", got=self.effort, wanted=", ".join(get_args(Effort)))
        if self.bits not in (1, 2, 3, 4, 6):
            raise UsageError("unknown number of bits for a palette", got=self.bits, wanted="1, 2, 3, 4 or 6")

    @property
    def calibrated(self) -> bool:
        """Whether activation statistics change the result."""
        return self.weights in ("palette", "int4")

    @property
    def curved(self) -> bool:
        """Whether the curvature is to be measured."""
        return self.calibrated and self.effort != "low"

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)
