"""What a forecast of placement says, with its shares and sums."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.report import Finding, Unjudged
from satchel.runtime.coreml.checks.target import Target
from satchel.runtime.coreml.inspection import merged
from satchel.runtime.coreml.placement.flow import Crossing, Run
from satchel.runtime.coreml.placement.reasons import Reason
from satchel.runtime.coreml.placement.units import ENGINE, UNITS, Assignment
from satchel.runtime.coreml.survey import Shape
from satchel.runtime.coreml.weights import Extent

PROOF = "A forecast by rules, not measured: only MLComputePlan on a Mac shows what Core ML does."
COUNTED = (
    "A crossing is a pair of runs on different units of which the second reads what the first made; a run is a stretch "
    "of ops on one unit, in an order that the data allows and that changes unit seldom. Constants, inputs and outputs "
    "cross nothing."
)


@dataclass(frozen=True)
class OpFigures:
    """An op that runs, wherever it does.

    Attributes:
        type, name, outputs: of the op.
        dtype, shape: of its first result.
        depth: of its block: 0 in the function's own body.
        macs: multiply-accumulates, unknown dimensions counted as 1.
        work: those, or the numbers that an op which is no product reads or writes; 0 where it only moves values.
        extents: where its weights lie.
        dynamic: whether a dimension of a result is not known before the program runs.
    """

    type: str
    name: str
    outputs: tuple[str, ...]
    dtype: str
    shape: Shape
    depth: int
    macs: int
    work: int
    extents: tuple[Extent, ...]
    dynamic: bool

    @property
    def weight_bytes(self) -> int:
        """Of weights that it reads, in the weight files."""
        return sum(e.size for e in merged(self.extents))


@dataclass(frozen=True)
class Placement:
    """Where the ops of a function run with one setting.

    Attributes:
        setting: of computeUnits.
        assignment: of units to ops.
        crossings: from one unit to another.
    """

    setting: str
    assignment: Assignment
    crossings: tuple[Crossing, ...]

    @property
    def units(self) -> tuple[str, ...]:
        """Of each op."""
        return self.assignment.units

    @property
    def runs(self) -> tuple[Run, ...]:
        """Of ops on one unit."""
        return self.assignment.runs

    def reasons(self, op: int) -> tuple[Reason, ...]:
        """Why an op is not on the engine, the first one deciding."""
        return self.assignment.reasons[op]


@dataclass(frozen=True)
class Sums:
    """What is where, by unit.

    Attributes:
        ops, macs: how many.
        weight_bytes: of weight files that ops on the unit read; what ops on two units read counts for both.
    """

    ops: Mapping[str, int]
    macs: Mapping[str, int]
    weight_bytes: Mapping[str, int]

    def share(self, of: str, unit: str = ENGINE) -> float | None:
        """The part of "ops", "macs" or "weight_bytes" on a unit, 0 to 1; None where there are none at all."""
        counts: Mapping[str, int] = getattr(self, of)
        total = sum(counts.values())
        return counts[unit] / total if total else None


@dataclass(frozen=True)
class FunctionForecast:
    """One function.

    Attributes:
        name: of the function.
        ops: those that run, in the program's order.
        constants: how many ops only stand for constants or expand weights, and run nowhere.
        placements: by setting.
    """

    name: str
    ops: tuple[OpFigures, ...]
    constants: int
    placements: Mapping[str, Placement]

    @cached_property
    def sums(self) -> dict[str, Sums]:
        """By setting."""
        return {name: self._sums(placement.units) for name, placement in self.placements.items()}

    @property
    def dynamic(self) -> int:
        """How many ops have shapes that are not known before the program runs."""
        return sum(op.dynamic for op in self.ops)

    def _sums(self, units: Iterable[str]) -> Sums:
        on: dict[str, list[OpFigures]] = {unit: [] for unit in UNITS}
        for op, unit in zip(self.ops, units, strict=True):
            on[unit].append(op)
        return Sums(
            {unit: len(ops) for unit, ops in on.items()},
            {unit: sum(op.macs for op in ops) for unit, ops in on.items()},
            {unit: sum(e.size for e in merged(e for op in ops for e in op.extents)) for unit, ops in on.items()},
        )


@dataclass(frozen=True)
class Forecast:
    """A whole package.

    Attributes:
        path: of the package.
        target: what it is judged for.
        setting: of computeUnits that is shown op by op.
        functions: the default one first.
        refused: what is wrong on any unit, so that the target may not load or run the program at all.
        unjudged: what could not be told.
    """

    path: str
    target: Target
    setting: str
    functions: tuple[FunctionForecast, ...]
    refused: tuple[Finding, ...]
    unjudged: tuple[Unjudged, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader should know of the target and the program."""
        found = [PROOF]
        if not self.target.has_engine:
            found.append(f"{self.target.name} has no Neural Engine that Core ML uses.")
        elif not self.target.engine:
            found.append("The engine's generation is not known: a rule of any generation counts.")
        if any(f.dynamic for f in self.functions):
            found.append("Dimensions that are not known before the program runs count as 1 in the arithmetic.")
        return found

    def rules(self) -> dict[str, Rule]:
        """Those that move an op with the setting shown, by id."""
        found = {
            reason.rule.id: reason.rule
            for function in self.functions
            for reasons in function.placements[self.setting].assignment.reasons
            for reason in reasons
        }
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "path": self.path,
            "forecast": self.notes,
            "target": asdict(self.target),
            "compute_units": self.setting,
            "refused": [f.to_json() for f in self.refused],
            "functions": [self._function(f) for f in self.functions],
            "rules": {
                identifier: {
                    "statement": rule.statement, "why": rule.why, "advice": rule.advice, "severity": rule.severity,
                    "confidence": rule.confidence, "source": rule.source,
                }
                for identifier, rule in self.rules().items()
            },
            "crossings_counted": COUNTED,
            "unjudged": [asdict(u) for u in self.unjudged],
        }  # fmt: skip

    def _function(self, function: FunctionForecast) -> dict[str, Any]:
        shown = function.placements[self.setting]
        return {
            **summary(function),
            "runs": [{"unit": r.unit, "ops": len(r.ops), "first": function.ops[r.ops[0]].name} for r in shown.runs],
            "crossings": [
                {"from": c.source, "to": c.reader, "values": list(c.values), "bytes": c.nbytes} for c in shown.crossings
            ],
            "ops": [_op(op, shown.units[i], shown.reasons(i)) for i, op in enumerate(function.ops)],
        }


def summary(function: FunctionForecast) -> dict[str, Any]:
    """A function's counts and shares by setting, as a JSON object."""
    return {
        "name": function.name,
        "op_count": len(function.ops),
        "constants": function.constants,
        "dynamic_ops": function.dynamic,
        "settings": {name: _setting(function, name) for name in function.placements},
    }


def _setting(function: FunctionForecast, name: str) -> dict[str, Any]:
    sums, placement = function.sums[name], function.placements[name]
    return {
        "ops": dict(sums.ops),
        "macs": dict(sums.macs),
        "weight_bytes": dict(sums.weight_bytes),
        "engine_share": {of: _rounded(sums.share(of)) for of in ("ops", "macs", "weight_bytes")},
        "runs": len(placement.runs),
        "crossings": len(placement.crossings),
        "values_crossing": sum(len(c.values) for c in placement.crossings),
        "bytes_crossing": sum(c.nbytes for c in placement.crossings),
    }


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def _op(op: OpFigures, unit: str, reasons: tuple[Reason, ...]) -> dict[str, Any]:
    return {
        "op": op.type,
        "name": op.name,
        "dtype": op.dtype,
        "shape": ["?" if d is None else d for d in op.shape],
        "block_depth": op.depth,
        "unit": unit,
        "rule": reasons[0].rule.id if reasons else None,
        "found": reasons[0].what if reasons else None,
        "also": [reason.rule.id for reason in reasons[1:]],
        "macs": op.macs,
        "weight_bytes": op.weight_bytes,
    }
