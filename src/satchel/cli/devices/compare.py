"""`satchel devices compare A B`: where two devices differ."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from satchel.cli.console import errors, out, print_json
from satchel.cli.devices.words import facts
from satchel.devices.profile import load_device


def command(
    first: Annotated[str, typer.Argument(metavar="A", help="A device, or the path of your own profile.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show side by side what differs between two devices."""
    with errors(as_json):
        a, b = load_device(first), load_device(second)
        pairs = list(zip(facts(a), facts(b), strict=True))
        differ = [(x, y) for x, y in pairs if x.value != y.value]
        if as_json:
            found = {x.label: {a.name: x.value, b.name: y.value} for x, y in differ}
            print_json({"devices": [a.to_json(), b.to_json()], "differences": found})
            return
        table = Table("fact", escape(a.title), escape(b.title), box=box.SIMPLE_HEAD, pad_edge=False)
        for x, y in differ:
            table.add_row(Text(x.label), Text(x.value), Text(y.value))
        if differ:
            out.print(table)
        same = [x.label for x, y in pairs if x.value == y.value]
        out.print(f"the same: {', '.join(same)}" if same else "nothing is the same", markup=False)
