"""What came out of walking two programs side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from satchel.runtime.coreml.measures import Measure
from satchel.runtime.coreml.tolerances import Tolerance
from satchel.runtime.mil.graph import Node
from satchel.runtime.mil.layers import Layer
from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.precision import OverflowReport


@dataclass(frozen=True)
class Compared:
    """An op in both programs.

    Attributes:
        a, b: the op in either.
        measure: how far its results are apart; the worst of its results and of its runs, if it is in a loop.
        allowed: how far they may be.
        layer: where it is, if that is known.
        growth: its error divided by the largest of its inputs' (at least one roundoff); None where none was compared.
    """

    a: Node
    b: Node
    measure: Measure
    allowed: Tolerance
    layer: Layer | None
    growth: float | None

    @property
    def departs(self) -> bool:
        """Whether the results are further apart than they may be."""
        return not self.measure.error <= self.allowed.value

    @property
    def moves(self) -> bool:
        """Whether the op only copies or moves values, so that an error in it came from elsewhere."""
        return self.a.op in OPS and OPS[self.a.op].exact

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; infinities become null."""
        m = self.measure
        return {
            "op": self.a.op, "name": self.a.name, "output": self.a.output, "other_op": self.b.op,
            "other_name": self.b.name, "layer": str(self.layer) if self.layer else None, "index": self.a.index,
            "depth": self.a.depth, "dtype": self.a.dtype, "shape": [d or 0 for d in self.a.shape],
            "error": _finite(m.error), "tolerance": self.allowed.value, "departs": self.departs,
            "largest_difference": _finite(m.largest), "relative_difference": _finite(m.relative),
            "sqnr_db": _finite(m.sqnr), "psnr_db": _finite(m.psnr), "largest_value": _finite(m.peak),
            "differing": m.differing, "growth": _finite(self.growth), "note": m.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Output:
    """What both functions return under one name.

    Attributes:
        name: of the output.
        measure: how far the two are apart.
        allowed: how far they may be.
    """

    name: str
    measure: Measure
    allowed: Tolerance

    @property
    def departs(self) -> bool:
        """Whether the two are further apart than they may be."""
        return not self.measure.error <= self.allowed.value

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; infinities become null."""
        m = self.measure
        return {
            "name": self.name, "error": _finite(m.error), "tolerance": self.allowed.value, "departs": self.departs,
            "largest_difference": _finite(m.largest), "sqnr_db": _finite(m.sqnr), "psnr_db": _finite(m.psnr),
            "note": m.note,
        }  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a walk found.

    Attributes:
        names: what the two sides are called.
        rows: every pair that ran on both sides, in the first program's order.
        clues: about the first op that departs: what of its inputs, weights and settings is not the same.
        only: for each side, how many of its ops have no partner.
        outputs: what both functions return, compared whether its ops have partners or not.
        overflows: for each side, the first op that overflowed fp16, where it was run in fp16.
    """

    names: tuple[str, str]
    rows: tuple[Compared, ...]
    clues: tuple[str, ...] = ()
    only: tuple[int, int] = (0, 0)
    outputs: tuple[Output, ...] = ()
    overflows: tuple[OverflowReport | None, OverflowReport | None] = (None, None)

    @property
    def first(self) -> Compared | None:
        """The first op whose results depart."""
        return next((row for row in self.rows if row.departs), None)

    @property
    def equal(self) -> bool:
        """Whether everything agrees within its tolerance, and something was compared."""
        return bool(self.rows or self.outputs) and self.first is None and not any(o.departs for o in self.outputs)

    def worst(self, count: int) -> list[Compared]:
        """The ops with the greatest errors relative to what they may have, those that only move values left out."""
        rows = [row for row in self.rows if not row.moves or row is self.first]
        return sorted(rows, key=_severity, reverse=True)[:count]

    def to_json(self, count: int | None = None) -> dict[str, Any]:
        """As a JSON object, with the `count` worst ops (all if None)."""
        first = self.first
        return {
            "a": self.names[0], "b": self.names[1], "equal": self.equal, "compared": len(self.rows),
            "only_in_a": self.only[0], "only_in_b": self.only[1], "departing": sum(r.departs for r in self.rows),
            "first": first.to_json() if first else None, "clues": list(self.clues),
            "outputs": [o.to_json() for o in self.outputs],
            "worst": [r.to_json() for r in self.worst(len(self.rows) if count is None else count)],
            "overflows": [o.to_json() if o else None for o in self.overflows],
        }  # fmt: skip


def _severity(row: Compared) -> tuple[float, float]:
    error = row.measure.error
    return (error / row.allowed.value if row.allowed.value else (math.inf if error else 0.0), error)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
