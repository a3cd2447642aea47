"""A forecast held against what Core ML itself plans on a Mac."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from satchel.runtime.coreml.placement.report import FunctionForecast


@dataclass(frozen=True)
class Difference:
    """An op that Core ML plans to run elsewhere than the forecast says.

    Attributes:
        op, name: its type and name.
        forecast, planned: units.
        rule: id of the rule that decided the forecast, "" where none moved the op.
    """

    op: str
    name: str
    forecast: str
    planned: str
    rule: str


@dataclass(frozen=True)
class Comparison:
    """One function's forecast beside its plan.

    Attributes:
        function: its name.
        counts: (unit in the forecast, unit in the plan) -> how many ops.
        differences: the ops of which the two do not agree, in the program's order.
        unplanned: how many ops of the forecast the plan says nothing of.
    """

    function: str
    counts: Mapping[tuple[str, str], int]
    differences: tuple[Difference, ...]
    unplanned: int

    @property
    def compared(self) -> int:
        """How many ops both speak of."""
        return sum(self.counts.values())

    @property
    def agreeing(self) -> int:
        """Of how many of them they say the same."""
        return self.compared - len(self.differences)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "function": self.function,
            "compared": self.compared,
            "agreeing": self.agreeing,
            "unplanned": self.unplanned,
            "counts": [{"forecast": f, "planned": p, "ops": n} for (f, p), n in sorted(self.counts.items())],
            "differences": [vars(d) for d in self.differences],
        }


def compare(function: FunctionForecast, setting: str, planned: Mapping[str, str]) -> Comparison:
    """Holds a function's forecast against a plan.

    Args:
        function: of the forecast.
        setting: of computeUnits with which the plan was made.
        planned: name of an op's first output -> the unit that Core ML prefers for it.
    """
    placement = function.placements[setting]
    counts: Counter[tuple[str, str]] = Counter()
    differences = []
    for i, op in enumerate(function.ops):
        forecast, found = placement.units[i], planned.get(op.outputs[0]) if op.outputs else None
        if found is None:
            continue
        counts[forecast, found] += 1
        if found != forecast:
            reasons = placement.reasons(i)
            rule = reasons[0].rule.id if reasons else ""
            differences.append(Difference(op.type, op.name, forecast, found, rule))
    return Comparison(function.name, counts, tuple(differences), len(function.ops) - sum(counts.values()))
