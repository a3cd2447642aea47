"""`satchel parity compare`: parity files of several devices side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import err, errors, out, print_json
from satchel.runtime.parity_file import read_record, write_bytes
from satchel.runtime.report.comparison import Comparison, compare
from satchel.runtime.report.page import page
from satchel.runtime.report.words import cell, sentences


def command(
    files: Annotated[list[Path], typer.Argument(metavar="A.json B.json ...", help="Files parity-<device>.json.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with plots there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put devices side by side, and say where each parts from the first. Exits with 1 where one does."""
    with errors(as_json):
        found = compare([read_record(path) for path in files])
        if html is not None:
            write_bytes(page(found).encode(), html)
        if as_json:
            print_json(found.to_json())
        else:
            print_comparison(found)
        if html is not None:
            err.print(f"wrote {html}", markup=False)
        if not found.agrees:
            raise typer.Exit(1)


def print_comparison(found: Comparison) -> None:
    """The table, a column each side, and where they part."""
    table = Table("", *(side.name for side in found.sides), box=box.SIMPLE_HEAD, pad_edge=False)
    for label, values in found.rows():
        table.add_row(label, *(cell(label, value) for value in values))
    out.print(table)
    for note in found.notes:
        out.print(note, markup=False)
    for part in found.parts:
        for sentence in sentences(part):
            out.print(sentence, markup=False, soft_wrap=True)
