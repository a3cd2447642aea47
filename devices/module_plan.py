"""A device profile and what is known of a traced module -> a plan, as planner.py makes one for a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from satchel.devices.errors import PlanError
from satchel.devices.plan import Plan
from satchel.devices.planner import joined, settle_format
from satchel.devices.planning.decisions import Decisions
from satchel.devices.planning.modules import PLANNERS
from satchel.devices.planning.target import Place
from satchel.devices.profile import DeviceProfile

MODULE_WEIGHTS = ("palette", "int8", "fp16", "fp32")
"""Schemes that a module's matrices can have."""


@dataclass(frozen=True)
class ModuleShape:
    """What a plan needs to know of a traced module.

    Attributes:
        parameters: count, a shared one counted once.
        kinds: of its matrices: "linear", "product", "convolution", "transposed", "embedding".
        sizes: sets of shapes that its examples have.
        dynamic: some dimension may have other sizes.
    """

    parameters: int
    kinds: frozenset[str]
    sizes: int
    dynamic: bool


def make_module_plan(
    profile: DeviceProfile,
    shape: ModuleShape,
    *,
    format: str | None = None,
    weights: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> Plan:
    """Chooses format, target, weights and shapes for a module on a device. Equal arguments give equal plans.

    Args:
        profile: the device.
        shape: the module.
        format: overrides the profile's first format.
        weights: overrides the scheme that the device would get.
        overrides: role -> value, choices that are settled; format and weights among them.

    Raises:
        PlanError: the device cannot run the format or a choice that was asked for, or a role or value is not known.
    """
    on = Decisions(profile.title, joined(overrides or {}, {"format": format, "weights": weights}))
    chosen = settle_format(on, profile)
    asked = on.asked("weights")
    if asked is not None and asked not in MODULE_WEIGHTS:
        raise PlanError("a weight scheme that modules do not have", got=asked, wanted=", ".join(MODULE_WEIGHTS))
    PLANNERS[chosen](on, Place(profile), shape)
    return Plan(profile.name, chosen, 0, 0, on.finish())
