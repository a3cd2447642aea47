"""`satchel devices`: all devices that have a profile."""

from __future__ import annotations

from rich import box
from rich.table import Column, Table

from satchel.cli.console import errors, out, print_json
from satchel.cli.devices.words import features, mark, span, system
from satchel.devices.groups import SERIES, groups
from satchel.devices.profile import DeviceProfile, device_names, known_names, load_device

WIDEST = 120
COLUMNS = ("device", "chip", "memory", "of an app", "GB/s", "engine", "CPU features")
ORDER = ("iOS", "iPadOS", "macOS", "Android", "Linux")


def print_all(as_json: bool) -> None:
    """Lists them, as a table of their essentials or as JSON."""
    with errors(as_json):
        if as_json:
            print_json([load_device(name).to_json() for name in device_names()])
            return
        columns = (Column(title, no_wrap=out.width >= WIDEST) for title in COLUMNS)
        table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
        profiles = [load_device(name) for name in groups()["all"]]
        for name in ORDER:
            table.add_row(f"[bold]{name}:[/bold]")
            for profile in (p for p in profiles if system(p) == name):
                table.add_row(*_row(profile))
        out.print(table)
        _print_notes()


def _row(profile: DeviceProfile) -> tuple[str, ...]:
    least, most = profile.app_memory_gb, profile.app_memory_entitled_gb
    return (
        profile.name,
        profile.chip.title,
        mark(profile, "memory_gb", f"{span(profile.memory_gb, profile.memory_most_gb)} GB"),
        mark(profile, "app_memory_gb", f"{span(least, most)} GB") if least else "-",
        mark(profile, "bandwidth_gb_s", f"{profile.bandwidth_gb_s:g}"),
        mark(profile, "engine", profile.engine or "-"),
        features(profile),
    )


def _print_notes() -> None:
    plain = [name for name in groups() if not name.endswith(SERIES)]
    series = [name for name in groups() if name.endswith(SERIES)]
    aliases = len(known_names()) - len(device_names())
    out.print(
        f"~ doubtful; memory of an app: without and with Apple's entitlement, - where there is no fixed limit.\n"
        f"{aliases} more names, such as iphone-12-mini, mean one of these. `satchel devices NAME` shows one.\n"
        f"Groups: {', '.join(plain)}, {series[0]} and the like.",
        markup=False,
    )
