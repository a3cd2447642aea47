"""How values of the type fp16 are held: exactly as computed in fp32, or rounded to fp16 as each op produces them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from satchel.runtime.errors import UsageError

Precision = Literal["fp32", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")

LARGEST_FP16 = np.float32(65504)
SMALLEST_NORMAL_FP16 = np.float32(2.0**-14)
EXPONENT_BITS = np.uint32(0x7F800000)
# Adding and subtracting 1.5 * 2**(e + 13) rounds a float of exponent e to 10 bits after its first, half to even.
ROUNDER = np.float32(1.5 * 2**13)
FEW = 2048  # below this many elements two casts are faster than six passes


@dataclass(frozen=True)
class OverflowReport:
    """The first op that turned finite values into infinity or NaN.

    Attributes:
        function: in which function of the program.
        op: type of the op.
        name: the op's name in the program.
        kind: "overflow" or "nan".
        largest_input: largest finite |x| among its inputs.
        count: how many elements of its output are affected.
        layer: where in the network that is, such as "layer 3 of 12 (counted from 0)" (layers.py); "" if unknown.
        remedy: what usually helps (remedies.py); "" where nobody asked.
    """

    function: str
    op: str
    name: str
    kind: Literal["overflow", "nan"]
    largest_input: float
    count: int
    layer: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        what = "overflows fp16" if self.kind == "overflow" else "gives NaN"
        place = f"{self.function}, {self.layer}," if self.layer else self.function
        return (
            f"{self.op} '{self.name}' in {place} {what} in {self.count} elements "
            f"(largest input {self.largest_input:g}, fp16 ends at 65504)"
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def check_precision(precision: str) -> Precision:
    """`precision` if it is one; UsageError naming the two otherwise."""
    for known in PRECISIONS:
        if precision == known:
            return known
    raise UsageError("precision of the interpreter", got=precision, wanted=PRECISIONS)


def round_fp16(x: np.ndarray) -> np.ndarray:
    """float32 -> the nearest fp16 values, as float32: ties to even, subnormals kept, beyond 65504 infinite.

    Where a finite value becomes infinite numpy's overflow flag is raised, as by a cast.
    """
    if x.size < FEW:
        return x.astype(np.float16).astype(np.float32)
    if not (x.min() >= -LARGEST_FP16 and x.max() <= LARGEST_FP16):  # also where a NaN is
        return x.astype(np.float16).astype(np.float32)
    step = (np.ascontiguousarray(x).view(np.uint32) & EXPONENT_BITS).view(np.float32)
    np.maximum(step, SMALLEST_NORMAL_FP16, out=step)
    step *= ROUNDER
    y = x + step
    y -= step
    return y


def affected(outputs: Sequence[np.ndarray], inputs: Sequence[Any]) -> tuple[Literal["overflow", "nan"], int] | None:
    """What an op did to finite inputs: ("nan" or "overflow", how many elements), or None."""
    floats = [x for x in inputs if isinstance(x, np.ndarray | np.generic) and x.dtype.kind == "f"]
    nans = sum(int(np.isnan(y).sum()) for y in outputs)
    if nans and not any(np.isnan(x).any() for x in floats):
        return "nan", nans
    infinities = sum(int(np.isinf(y).sum()) for y in outputs)
    if infinities and not any(np.isinf(x).any() for x in floats):
        return "overflow", infinities
    return None


def largest(inputs: Sequence[Any]) -> float:
    """Largest finite |x| among float arrays."""
    floats = [np.abs(x) for x in inputs if isinstance(x, np.ndarray | np.generic) and x.dtype.kind == "f" and x.size]
    return max((float(np.max(a, where=np.isfinite(a), initial=0)) for a in floats), default=0.0)
