"""`satchel embed`: a bundle into an app's project."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import errors, megabytes, out, print_json
from satchel.runtime.embed import Embedded, find_app, remove
from satchel.runtime.embed import embed as embed_bundle
from satchel.runtime.errors import UsageError

WAYS = ("auto", "app", "pack")


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .satchel folder; for --remove its name will do.")],
    app: Annotated[str, typer.Option(metavar="APP", help="ios, android or web: a sample app; or a project's folder.")],
    way: Annotated[
        str, typer.Option("--as", help="app: inside it; pack: delivered by the store; auto: by the store's limit.")
    ] = "auto",
    removing: Annotated[bool, typer.Option("--remove", help="Take the bundle out again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Put a bundle into an app's project, and say what lies where. A second time changes nothing."""
    with errors(as_json):
        if way not in WAYS:
            raise UsageError("no such way to embed", got=way, wanted=", ".join(WAYS))
        project = find_app(app)
        result = remove(bundle, project) if removing else embed_bundle(bundle, project, way)  # type: ignore[arg-type]
        if as_json:
            print_json(result.to_json())
        else:
            _print(result)


def _print(result: Embedded) -> None:
    out.print(f"[bold]{result.name}[/bold]  {result.way or 'taken out'}  ({result.app.root})")
    table = Table("", "path", "bytes", box=box.SIMPLE_HEAD, pad_edge=False)
    for each in result.done:
        table.add_row(each.what, each.path, megabytes(each.bytes) if each.bytes else "")
    out.print(table)
    if not result.changed:
        out.print("nothing had to be changed")
    for step in result.steps:
        out.print(f"next: {step}", markup=False)
