"""A device profile and the shape of a model -> a plan: which ops, weights and sizes, each with its reason.

How a choice is made is in devices/planning/, a module a format; every figure that decides is in devices/rules/.
"""

from __future__ import annotations

from collections.abc import Mapping

from satchel.devices.errors import PlanError
from satchel.devices.plan import ModelShape, Plan
from satchel.devices.planning.coreml import coreml
from satchel.devices.planning.decisions import Decisions, Other, never
from satchel.devices.planning.executorch import executorch
from satchel.devices.planning.onnx import onnx
from satchel.devices.planning.target import Target
from satchel.devices.planning.weights import WEIGHTS
from satchel.devices.profile import DeviceProfile

__all__ = ["FORMATS", "WEIGHTS", "make_plan"]

PLANNERS = {"coreml": coreml, "onnx": onnx, "executorch": executorch}
FORMATS = tuple(PLANNERS)


def make_plan(
    profile: DeviceProfile,
    shape: ModelShape,
    *,
    format: str | None = None,
    weights: str | None = None,
    context: int | None = None,
    by_loss: bool = False,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Chooses the ops, the weights and the sizes for a model on a device. Equal arguments give equal plans.

    Args:
        profile: the device.
        shape: the model.
        format: overrides the profile's first format.
        weights: overrides the scheme that the device would get.
        context: tokens that the cache holds; by default 1024, or what the model was trained for if that is less, or
            fewer where the cache would not fit the device's memory.
        by_loss: whether the bits of each linear will be chosen by its measured loss, k and v among them.
        overrides: role -> value, choices that are settled; format, weights and context_length among them.

    Raises:
        PlanError: the device cannot run the format or a choice that was asked for, the context is out of range, or a
            role or value is not known. Where a rule forbids a choice, the error names and quotes it.
    """
    asked = joined(overrides or {}, {"format": format, "weights": weights, "context_length": context})
    on = Decisions(profile.title, asked)
    chosen = settle_format(on, profile)
    context_length, prefill_length = PLANNERS[chosen](on, Target(profile, shape), by_loss=by_loss)
    return Plan(profile.name, chosen, context_length, prefill_length, on.finish())


def joined(overrides: Mapping[str, str], arguments: Mapping[str, object]) -> dict[str, str]:
    """Overrides, with the arguments that settle a role too."""
    given = {role: str(value) for role, value in arguments.items() if value is not None}
    for role, value in given.items():
        if overrides.get(role, value) != value:
            raise PlanError(f"{role} was asked for twice", got=f"{value} and {overrides[role]}", wanted="one of them")
    return {**overrides, **given}


def settle_format(on: Decisions, profile: DeviceProfile) -> str:
    """Decides the format: the profile's first, or what was asked for; PlanError where the device cannot run it."""
    asked = on.asked("format")
    if asked is not None and asked not in FORMATS:
        raise PlanError("unknown format", got=asked, wanted=", ".join(FORMATS))
    if asked is not None and asked not in profile.formats:
        raise PlanError(
            f"{profile.title} cannot run {asked}", got=asked, wanted=", ".join(profile.formats),
            hint=_why_not(profile, asked),
        )  # fmt: skip
    first, *others = profile.formats
    rejected = [Other(name, "the profile prefers another", "CH25") for name in others]
    rejected += [never(name, _why_not(profile, name), "CH25") for name in FORMATS if name not in profile.formats]
    return on.settle("format", first, f"the first that {profile.title} lists", "CH25", *rejected)


def _why_not(profile: DeviceProfile, format: str) -> str:
    if format == "coreml":
        return f"Core ML exists on Apple's systems only, and this device runs {profile.os}"
    return f"the profile of {profile.name} does not list it; copy the profile and add it if you know that it runs there"
