"""`satchel devices NAME`: one device, each figure with its source."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import errors, out, print_json
from satchel.cli.devices.words import facts
from satchel.devices.profile import DeviceProfile, load_device


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device, or the path of your own profile.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one device with the source of each figure."""
    with errors(as_json):
        profile = load_device(name)
        if as_json:
            print_json(profile.to_json())
        else:
            print_profile(profile)


def print_profile(profile: DeviceProfile) -> None:
    """Its facts as a table of value and source; ~ marks the doubtful ones."""
    further = f", also {', '.join(profile.also)}" if profile.also else ""
    out.print(Text(f"{profile.title} ({profile.name}{further})", "bold"))
    table = Table("fact", "value", "source", box=box.SIMPLE_HEAD, pad_edge=False)
    for fact in facts(profile):
        if fact.value != "-":
            table.add_row(Text(fact.label), Text(fact.value), Text(fact.source))
    out.print(table)
    if any(fact.value.startswith("~") for fact in facts(profile)):
        out.print("~ doubtful")
