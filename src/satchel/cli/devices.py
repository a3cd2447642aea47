"""`satchel devices`: what there are profiles of."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import errors, out, print_json
from satchel.devices.profile import device_names, load_device


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the devices that have a profile."""
    with errors(as_json):
        profiles = [load_device(name) for name in device_names()]
        if as_json:
            print_json([p.to_json() for p in profiles])
            return
        table = Table(
            "device",
            "name",
            "chip",
            "memory",
            "GB/s",
            "engine",
            "features",
            "formats",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for p in profiles:
            table.add_row(
                p.name, p.title, p.chip.title, f"{p.memory_gb:g} GB", f"{p.bandwidth_gb_s:g}", p.engine or "-",
                " ".join(p.isa), " ".join(p.formats),
            )  # fmt: skip
        out.print(table)
