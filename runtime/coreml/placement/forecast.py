"""A forecast of where the ops of a built Core ML program run: on the engine, the GPU or the CPU.

It is read from the program and from the rules in devices/rules that say what leaves the engine (`leaves`, `unit`).
Core ML decides on the device, by costs that are not published, so only MLComputePlan on a Mac proves where an op runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from satchel.devices.rulebook import Rule, load_rules
from satchel.runtime.coreml.checks.judge import CORE_RULES, ENGINE_RULES, applies, judge_subject
from satchel.runtime.coreml.checks.subject import Subject
from satchel.runtime.coreml.checks.target import Target, resolve_target
from satchel.runtime.coreml.placement import arithmetic
from satchel.runtime.coreml.placement.flow import crossings, flow
from satchel.runtime.coreml.placement.reasons import Reasons, find_reasons
from satchel.runtime.coreml.placement.report import Forecast, FunctionForecast, OpFigures, Placement
from satchel.runtime.coreml.placement.units import CPU, SETTINGS, assign
from satchel.runtime.coreml.survey import FunctionSurvey, surveys
from satchel.runtime.errors import UsageError
from satchel.runtime.mil.package import Package, open_package

DEFAULT_SETTING = "cpuAndNeuralEngine"


def forecast_package(path: Path | str, target: str | None = None, setting: str = DEFAULT_SETTING) -> Forecast:
    """Says where the ops of a package run.

    Args:
        path: a .mlpackage folder, or a .mlmodel file that holds an ML Program.
        target: a device's name, a system such as "iOS17" or "macOS15", an engine such as "H16"; None for any.
        setting: the app's MLModelConfiguration.computeUnits: "cpuAndNeuralEngine", "all", "cpuAndGPU" or "cpuOnly".

    Raises:
        FormatError: it is not a readable ML Program.
        UsageError, DeviceError: the target or the setting is not known.
    """
    if setting not in SETTINGS:
        raise UsageError("compute units", got=setting, wanted=list(SETTINGS))
    aim = resolve_target(target)
    return forecast(open_package(Path(path)), aim, (*load_rules(CORE_RULES), *load_rules(ENGINE_RULES)), setting)


def forecast(package: Package, target: Target, rules: Iterable[Rule], setting: str = DEFAULT_SETTING) -> Forecast:
    """Says where the ops of a package run, by the rules that hold for the target; all settings are tried."""
    every = {rule.id: rule for rule in rules}
    subject = Subject(package, surveys(package), target, every)
    reasons, unjudged = find_reasons(subject)
    small = next((r for r in every.values() if r.leaves == "run" and applies(r, target)), None)
    functions = tuple(_function(f, reasons, small, target) for f in subject.functions)
    core = judge_subject(replace(subject, rules={i: r for i, r in every.items() if not i.startswith("NE")}))
    refused = tuple(f for f in core.findings if f.severity == "error")
    return Forecast(package.path.name, target, setting, functions, refused, unjudged)


def _function(function: FunctionSurvey, reasons: Reasons, small: Rule | None, target: Target) -> FunctionForecast:
    data = flow(function)
    figures = tuple(
        OpFigures(
            op.type, op.name, op.outputs, *_type(function, op.outputs), op.depth,
            arithmetic.multiply_accumulates(function, op), arithmetic.work(function, op),
            arithmetic.weight_extents(function, op), arithmetic.is_dynamic(function, op),
        )
        for op in data.ops
    )  # fmt: skip
    placements = {}
    for name, allowed in SETTINGS.items():
        usable = tuple(u for u in allowed if u != "engine" or target.has_engine) or (CPU,)
        placed = assign(data, [f.work for f in figures], reasons, small, usable)
        placements[name] = Placement(name, placed, crossings(data.edges, placed.runs))
    constants = len(function.ops) - len(data.ops)
    return FunctionForecast(function.name, figures, constants, placements)


def _type(function: FunctionSurvey, outputs: tuple[str, ...]) -> tuple[str, tuple[int | None, ...]]:
    """(name of the element type, shape) of the first result; ("", ()) where it is no tensor."""
    found = function.types.get(outputs[0]) if outputs else None
    return (found[0].name, found[1]) if found else ("", ())
