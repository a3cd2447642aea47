"""Recipes: what to do to each matrix, as data.

A recipe is a frozen record that can be written down and compared; equal recipes give equal weights. Files of recipes
are read by export/recipes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from math import inf
from typing import Any, Literal, get_args

from satchel.runtime.errors import UsageError

WeightsName = Literal["palette", "int4", "int8", "fp16", "fp32", "source"]
LutGroups = Literal["tensor", "rows16"]
ScaleDtype = Literal["float16", "bfloat16"]
Effort = Literal["low", "normal", "high"]
EmbeddingName = Literal["int8", "fp16", "fp32"]

PALETTE_WIDTHS = (1, 2, 3, 4, 6, 8)
"""Bits of a palette; 8 stands for a scale a row without a LUT."""
AFFINE_WIDTHS = (4, 8)
"""Bits of affine codes: 4 by blocks, or 8 with a scale a row."""
WIDTHS: dict[str, tuple[int, ...]] = {"palette": PALETTE_WIDTHS, "int4": AFFINE_WIDTHS}


@dataclass(frozen=True)
class Calibration:
    """How much text a model is calibrated on.

    Attributes:
        own: sequences that the model generates; none of a model that is streamed, since each token would read it whole.
        shipped: sequences from the texts that ship with Satchel.
        length: tokens of each.
        temperature: of the sampling.
        seed: of the sampling, and of the labels that the curvature is measured with.
    """

    own: int
    shipped: int
    length: int
    temperature: float = 1.0
    seed: int = 0


CALIBRATION: dict[Effort, Calibration] = {
    "low": Calibration(own=16, shipped=0, length=64),
    "normal": Calibration(own=24, shipped=24, length=256),
    "high": Calibration(own=96, shipped=96, length=256),
}


@dataclass(frozen=True)
class Budget:
    """What the widths of a model's linears are chosen to meet; one of the three is set.

    Attributes:
        average_bits: of a weight of the linears, scales and LUTs counted; the least loss within it.
        max_bytes: of the bundle; the least loss within it.
        max_kl: mean KL divergence to the reference, in nats a token; the fewest bytes within it.
    """

    average_bits: float | None = None
    max_bytes: int | None = None
    max_kl: float | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in asdict(self).items() if value is not None]
        if len(given) != 1:
            raise UsageError("a budget is one figure", got=", ".join(given) or "none", wanted=", ".join(asdict(self)))
        value = getattr(self, given[0])
        if not 0 < value < inf:
            raise UsageError(f"a budget's {given[0]} is more than nothing", got=value, wanted="a positive number")

    def __str__(self) -> str:
        if self.max_bytes is not None:
            return f"at most {self.max_bytes / 1e6:.1f} MB"
        return f"KL at most {self.max_kl}" if self.max_kl is not None else f"{self.average_bits} bits a weight"


@dataclass(frozen=True)
class Recipe:
    """How the matrices of a model are compressed.

    Attributes:
        weights: the scheme of the linears: "palette" (a LUT of 2**bits int8 entries and a scale a row), "int4" (affine,
            with a scale and a zero point for each `block` weights), "int8" (a scale a row), "fp16", "fp32", "source"
            (the codes of a quantized checkpoint as they are).
        widths: bits that each linear may have. Of several, one is chosen by the measured loss to meet `budget`.
        overrides: (pattern of canonical names, as fnmatch has them, bits): linears whose bits are settled beforehand;
            the first pattern that matches counts.
        budget: what the choice among several widths is to meet.
        effort: "low" weighs columns by their mean square and rounds each weight on its own; "normal" measures the
            curvature and lets later columns make up for the errors of earlier ones (GPTQ); "high" measures it over more
            text, refines longer what GPTQ found (refine.py), and where memory allows it tunes the scales of int4 in the
            rounded model as a whole (calibration/tuning.py).
        lut_groups: one LUT for the whole tensor, or one for each 16 rows.
        block: weights that share an affine scale.
        symmetric: affine codes without zero points, as XNNPACK wants them.
        scale_dtype: what affine scales are rounded to.
        rounds: alternations of k-means and the least-squares refit of the row scales.
        embedding: the scheme of the embedding and the head; 8 bits since 4 doubled the KL.
        no_zero_points: patterns of linears whose bits are settled, and whose 4-bit blocks go without zero points.
    """

    weights: WeightsName = "palette"
    widths: tuple[int, ...] = (4,)
    overrides: tuple[tuple[str, int], ...] = ()
    budget: Budget | None = None
    effort: Effort = "low"
    lut_groups: LutGroups = "tensor"
    block: int = 32
    symmetric: bool = False
    scale_dtype: ScaleDtype = "float16"
    rounds: int = 3
    embedding: EmbeddingName = "int8"
    no_zero_points: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field, kind in (("weights", WeightsName), ("effort", Effort)):
            if getattr(self, field) not in get_args(kind):
                raise UsageError(f"unknown {field}", got=getattr(self, field), wanted=", ".join(get_args(kind)))
        self._check_widths()

    def _check_widths(self) -> None:
        known = WIDTHS.get(self.weights)
        bits = [*self.widths, *(b for _, b in self.overrides)]
        if known is None and (len(self.widths) != 1 or self.overrides):
            raise UsageError("bits are chosen for palettes and int4", got=self.weights, wanted=", ".join(WIDTHS))
        if known is not None and (not self.widths or any(b not in known for b in bits)):
            wanted = ", ".join(map(str, known))
            raise UsageError(f"unknown number of bits for {self.weights}", got=bits or "none", wanted=wanted)
        if (len(self.widths) > 1) != (self.budget is not None):
            raise UsageError(
                "several widths need a budget to choose by, and a budget several widths", got=list(self.widths),
                hint="give one of average_bits, max_size and max_kl beside two widths or more",
            )  # fmt: skip
        if self.no_zero_points and (self.weights != "int4" or self.symmetric):
            raise UsageError(
                "only int4 has zero points to leave out", got=self.weights, hint="drop zero_points = false"
            )
        if self.budget is not None and self.effort == "low":
            raise UsageError("a budget needs measured losses", got="effort low", wanted="normal or high")

    @property
    def calibrated(self) -> bool:
        """Whether activation statistics change the result."""
        return self.weights in WIDTHS

    @property
    def curved(self) -> bool:
        """Whether the curvature is to be measured."""
        return self.calibrated and self.effort != "low"

    @property
    def tunable(self) -> bool:
        """Whether the rounded model is to be tuned as a whole; what that does to a palette was not measured."""
        return self.weights == "int4" and self.effort == "high"

    def widths_of(self, name: str) -> tuple[int, ...]:
        """The bits that a linear may have, by its canonical name."""
        settled = next((bits for pattern, bits in self.overrides if fnmatchcase(name, pattern)), None)
        return self.widths if settled is None else (settled,)

    def lacks_zero_points(self, name: str) -> bool:
        """Whether no_zero_points names a linear."""
        return any(fnmatchcase(name, pattern) for pattern in self.no_zero_points)

    @property
    def measured(self) -> Recipe:
        """The recipe without what only chooses among the forms of a linear: equal ones share what was measured."""
        return replace(self, widths=(4,), overrides=(), budget=None, embedding="int8", no_zero_points=())

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)
