"""Which unit each op of a function runs on, by the app's compute-units setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.placement.arithmetic import MOVES
from satchel.runtime.coreml.placement.flow import Flow, Run, runs
from satchel.runtime.coreml.placement.reasons import Reason, Reasons

ENGINE, GPU, CPU = "engine", "gpu", "cpu"
UNITS = (ENGINE, GPU, CPU)
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "cpuAndNeuralEngine": (ENGINE, CPU),
    "all": (ENGINE, GPU, CPU),
    "cpuAndGPU": (GPU, CPU),
    "cpuOnly": (CPU,),
}
"""MLModelConfiguration.computeUnits -> the units that it allows, the one that is taken where nothing is against it
first. No rules about the GPU are known here: what the engine does not take goes there where it is allowed."""


@dataclass(frozen=True)
class Assignment:
    """Where the ops of a function run.

    Attributes:
        units: of each op that runs.
        reasons: of each op, why it does not run on the engine, the first one deciding; empty where it does, or where
            the setting alone says so.
        runs: of ops on one unit.
    """

    units: tuple[str, ...]
    reasons: tuple[tuple[Reason, ...], ...]
    runs: tuple[Run, ...]


def assign(flow: Flow, work: Sequence[int], reasons: Reasons, small: Rule | None, allowed: Sequence[str]) -> Assignment:
    """Places the ops of a function.

    Args:
        flow: of its data.
        work: of each op.
        reasons: why ops leave the engine.
        small: the rule about runs too small to be worth a change of unit, None for no such rule.
        allowed: units, the preferred first.
    """
    why = [tuple(reasons.get(id(op), ())) if ENGINE in allowed else () for op in flow.ops]
    units = [_elsewhere(w[0].rule.unit, allowed) if w else allowed[0] for w in why]
    if small is None or not small.number("least_work"):
        return Assignment(tuple(units), tuple(why), runs(flow.waits, units))
    while True:
        for i, unit in _carried(flow, units).items():
            units[i] = unit
            why[i] = (*why[i], Reason(small, f"only moves values of ops that are on the {unit}"))
        found = runs(flow.waits, units)
        moved = _too_small(found, work, small)
        if not moved:
            break
        for place, unit in moved.items():
            run = found[place]
            what = f"a run of {len(run.ops)} ops with {_work(run, work):,} operations"
            for i in run.ops:
                units[i] = _elsewhere(unit, allowed)
                why[i] = (*why[i], Reason(small, what))
    return Assignment(tuple(units), tuple(why), found)


def _elsewhere(unit: str, allowed: Sequence[str]) -> str:
    """`unit` where the setting allows it, else the CPU, which every setting does."""
    return unit if unit in allowed else CPU


def _work(run: Run, work: Sequence[int]) -> int:
    return sum(work[i] for i in run.ops)


def _carried(flow: Flow, units: Sequence[str]) -> dict[int, str]:
    """Ops on the engine that only move values, from and to ops that are all elsewhere -> where those are."""
    group = {i: i for i, op in enumerate(flow.ops) if units[i] == ENGINE and op.type in MOVES}
    inside = [e for e in flow.edges if e.source in group and e.reader in group]
    for edge in inside:
        a, b = _first(group, edge.source), _first(group, edge.reader)
        group[max(a, b)] = min(a, b)
    around: dict[int, set[str]] = {}
    for edge in flow.edges:
        for here, there in ((edge.source, edge.reader), (edge.reader, edge.source)):
            if here in group and there not in group:
                around.setdefault(_first(group, here), set()).add(units[there])
    found = {i: around.get(_first(group, i), {ENGINE}) for i in group}
    return {i: GPU if near == {GPU} else CPU for i, near in found.items() if ENGINE not in near}


def _first(group: dict[int, int], i: int) -> int:
    """The op that stands for the connected ops to which `i` belongs."""
    while group[i] != i:
        group[i] = group[group[i]]
        i = group[i]
    return i


def _too_small(found: Sequence[Run], work: Sequence[int], small: Rule) -> dict[int, str]:
    """Places of runs that are not worth a change of unit -> where they go: to their neighbours', or as the rule says.

    A run only ever goes from the engine to another unit, or from the GPU to the CPU.
    """
    least = small.number("least_work")
    moved = {}
    for place, run in enumerate(found):
        if run.unit != CPU and _work(run, work) < least:
            around = {r.unit for r in (*found[max(place - 1, 0) : place], *found[place + 1 : place + 2])}
            moved[place] = GPU if around == {GPU} and run.unit == ENGINE else small.unit
    return moved
