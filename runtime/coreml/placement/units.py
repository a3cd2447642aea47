"""Which unit each op of a function runs on, by the app's compute-units setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from satchel.devices.rulebook import Rule
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
    found = runs(flow.waits, units)
    while small is not None and (moved := _too_small(found, work, small)):
        for place, unit in moved.items():
            run = found[place]
            what = f"a run of {len(run.ops)} ops with {_work(run, work):,} operations"
            for i in run.ops:
                units[i] = _elsewhere(unit, allowed)
                why[i] = (*why[i], Reason(small, what))
        found = runs(flow.waits, units)
    return Assignment(tuple(units), tuple(why), found)


def _elsewhere(unit: str, allowed: Sequence[str]) -> str:
    """`unit` where the setting allows it, else the CPU, which every setting does."""
    return unit if unit in allowed else CPU


def _work(run: Run, work: Sequence[int]) -> int:
    return sum(work[i] for i in run.ops)


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
