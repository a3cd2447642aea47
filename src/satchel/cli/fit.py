"""What `satchel preflight` says of any model: whether it fits, with the sum, sizes and the first load."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import out
from satchel.devices.forecast import ENTITLED, FITS
from satchel.devices.forecast.memory import HELD
from satchel.devices.forecast.verdict import Fit

MB = 1e6
STYLES = {FITS: "green", ENTITLED: "yellow"}


def verdict(found: Fit) -> Text:
    """In its color."""
    style = STYLES.get(found.verdict, "red")
    return Text(found.verdict + (", tightly" if found.tight else ""), style=style)


def may_use(found: Fit) -> str:
    """MB that an app may use, those with the entitlement in parentheses."""
    plain, entitled = (f"{size / MB:,.0f}" for size in (found.allowance.plain, found.allowance.entitled))
    return plain if plain == entitled else f"{plain} ({entitled})"


def print_memory(found: Fit, at_work: str) -> None:
    """The sum; `at_work` says when it is the most, if that is not while the model is loaded."""
    table = Table("memory", "MB", "when", "from", box=box.SIMPLE_HEAD, pad_edge=False)
    for line in found.memory.lines:
        table.add_row(line.name, f"{line.bytes / MB:,.1f}", line.when, Text(line.source))
    memory, allowance = found.memory, found.allowance
    when = "while the model is loaded" if memory.loading > memory.of(HELD) else at_work
    table.add_section()
    table.add_row("needed", f"{memory.needed / MB:,.1f}", "at the most", when)
    table.add_row("an app may use", f"{allowance.plain / MB:,.1f}", "", Text(allowance.source))
    if allowance.entitled != allowance.plain:
        words = "with the increased-memory-limit entitlement"
        table.add_row("", f"{allowance.entitled / MB:,.1f}", "", words)
    out.print(table)
    if found.perhaps != found.verdict:
        out.print(f"with what may be needed besides ('perhaps'): {found.perhaps}")


def print_storage(found: Fit) -> None:
    """Sizes, and what stores allow."""
    storage = found.storage
    made = f", and {storage.made / MB:,.0f} MB that the system makes at the first load" if storage.made else ""
    out.print(f"download and install: {storage.install / MB:,.0f} MB{made}; delivered {storage.best or 'by no store'}")
    for limit, within in storage.ways:
        if not within:
            out.print(f"  too large to be shipped {limit.way}: {limit.gb:g} GB ({limit.source})", markup=False)


def print_loading(found: Fit) -> None:
    """How long loading takes, and what leaves the engine."""
    load = found.loading
    words = f"first load: about {load.first:,.0f} s ({load.first_low:,.0f} to {load.first_high:,.0f})"
    out.print(f"{words}, later {load.later:,.1f} s; {load.source}", markup=False)
    for leaving in found.leaving:
        out.print(f"leaves the engine: {leaving.what}: {leaving.why} ({leaving.rule})", markup=False)
