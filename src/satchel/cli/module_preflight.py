"""What `satchel preflight` says of a module, or of a model for a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import out, print_json
from satchel.cli.fit import MB, may_use, print_loading, print_memory, print_storage, verdict
from satchel.devices.forecast.modules import ModuleForecast, forecast_module
from satchel.devices.module_plan import make_module_plan
from satchel.devices.profile import DeviceProfile


@dataclass(frozen=True)
class ModuleWishes:
    """What is asked for; None leaves a choice to the plan.

    Attributes:
        format, weights, overrides: as make_module_plan has them.
        bits: of a palette.
        effort: as `satchel export` has it.
    """

    format: str | None
    weights: str | None
    bits: int | None
    effort: str | None
    overrides: Mapping[str, str]


def tell_module(outline: Any, profiles: Sequence[DeviceProfile], wishes: ModuleWishes, as_json: bool) -> bool:
    """Prints the forecasts of an Outline; returns whether it fits every device."""
    shape = outline.shape
    found = [_forecast(outline, shape, profile, wishes) for profile in profiles]
    if as_json:
        devices = [each.to_json() for each in found]
        print_json({"model": outline.name, "parameters": shape.parameters, "devices": devices})
    elif len(found) == 1:
        _print_one(outline.name, shape.parameters, profiles[0], found[0])
    else:
        _print_many(outline.name, found)
    return all(each.fits for each in found)


def _forecast(outline: Any, shape: Any, profile: DeviceProfile, wishes: ModuleWishes) -> ModuleForecast:
    from satchel.export.module.compress import BITS, ModuleRecipe

    plan = make_module_plan(
        profile, shape, format=wishes.format, weights=wishes.weights, overrides=wishes.overrides
    )  # fmt: skip
    effort: Any = wishes.effort or "normal"
    recipe = ModuleRecipe(plan["weights"], wishes.bits or BITS, effort=effort)
    return forecast_module(profile, plan, outline.sizes(recipe))


def _print_one(name: str, parameters: int, profile: DeviceProfile, found: ModuleForecast) -> None:
    words = f"{name} ({parameters / 1e6:,.3g} million parameters) on {profile.title}: "
    out.print(Text(words, style="bold") + verdict(found))
    out.print(f"{found.plan.format}, {found.plan['weights']}\n")
    print_memory(found, "during the largest call")
    print_storage(found)
    call = found.call
    times = f"{1e3 / call.value:,.2g} ms ({1e3 / call.high:,.2g} to {1e3 / call.low:,.2g}), bound by {call.bound}"
    out.print(f"a call: about {times}\n  = {call.formula}", markup=False)
    print_loading(found)


def _print_many(name: str, found: Sequence[ModuleForecast]) -> None:
    out.print(name, style="bold", markup=False)
    table = Table(
        "device", "format", "weights", "needs MB", "may use MB", "verdict", "install MB", "call ms", "first load s",
        box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for each in found:
        call = each.call
        table.add_row(
            each.device, each.plan.format, each.plan["weights"], f"{each.memory.needed / MB:,.0f}", may_use(each),
            verdict(each), f"{each.storage.install / MB:,.0f}",
            f"{1e3 / call.value:,.2g} ({1e3 / call.high:,.2g}-{1e3 / call.low:,.2g})", f"{each.loading.first:,.0f}",
        )  # fmt: skip
    out.print(table)
