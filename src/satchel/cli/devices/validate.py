"""`satchel devices validate FILE`: whether a profile is right, everything that is wrong, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import errors, fail, out, print_json
from satchel.cli.devices.show import print_profile
from satchel.cli.devices.words import WORDS
from satchel.devices.errors import DeviceError, PlanError
from satchel.devices.plan import ModelShape
from satchel.devices.planner import make_plan
from satchel.devices.profile import DeviceProfile, device_names, examine_profile

EXAMPLE = "SmolLM2-135M"
SHAPE = ModelShape(
    layers=30, hidden_size=576, heads=9, kv_heads=3, head_dim=64, intermediate_size=1536, vocab_size=49152,
    parameters=134_515_008, max_position=8192, tied_embeddings=True,
)  # fmt: skip


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A profile, such as my-board.toml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a profile: what is wrong with it, or what it says and what would be built for it. Exit code 2 if bad."""
    profile, problems = examine_profile(file)
    if profile is None:
        _report(problems, as_json)
        raise typer.Exit(2)
    with errors(as_json):
        if as_json:
            print_json(
                {"valid": True, "notes": list(notes(profile)), "profile": profile.to_json(), "plan": _plan(profile)}
            )
            return
        print_profile(profile)
        for note in notes(profile):
            out.print(f"note: {note}", markup=False)
        _print_plan(profile)
        out.print(f"{file} is a good profile: satchel export MODEL --device {file}", style="green", markup=False)


def _report(problems: list[DeviceError], as_json: bool) -> None:
    if as_json:
        parts = [{"what": p.what, "got": p.got, "wanted": p.wanted, "hint": p.hint} for p in problems]
        shown = [{k: str(v) for k, v in part.items() if v not in (None, "")} for part in parts]
        print_json({"valid": False, "problems": shown})
        return
    for problem in problems:
        fail(problem)


def notes(profile: DeviceProfile) -> Iterator[str]:
    """What is not wrong, but worth a look."""
    if profile.name in device_names():
        yield f"{profile.name} is the name of a profile that comes with Satchel; bundles are named by it"
    unsaid = {"formats"} | ({"oldest_os"} if profile.oldest_os == profile.os_version else set())
    told = [(field, words(profile)) for field, _, words in WORDS]
    silent = [field for field, value in told if value != "-" and field not in unsaid and not profile.source(field)]
    if silent:
        yield f"no source is given for {', '.join(silent)}"
    if profile.os == "android" and profile.app_memory_gb:
        yield "Android has no fixed limit of an app's memory: 0 says so"
    if profile.os == "ios" and not profile.app_memory_gb:
        yield "iOS ends an app at a limit; 0 means that there is none, and nothing will be judged by it"


def _plan(profile: DeviceProfile) -> dict[str, Any]:
    try:
        return make_plan(profile, SHAPE).to_json()
    except PlanError as error:
        return {"error": str(error)}


def _print_plan(profile: DeviceProfile) -> None:
    """What would be built for the device by default, with the reasons."""
    plan = _plan(profile)
    if "error" in plan:
        out.print(f"no plan for it: {plan['error']}", markup=False)
        return
    out.print(f"What would be built of {EXAMPLE} by default, in {plan['format']}:", markup=False)
    table = Table("role", "choice", "why", box=box.SIMPLE_HEAD, pad_edge=False)
    for choice in plan["choices"]:
        table.add_row(*(Text(str(choice[key])) for key in ("role", "value", "reason")))
    out.print(table)
