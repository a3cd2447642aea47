"""`satchel inspect`: what a bundle or a model file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import errors, megabytes, out, print_json
from satchel.runtime.inspect import inspect_path


def command(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE|FILE", help="A .satchel folder, .mlpackage, .onnx or .pte.")],
    weights: Annotated[bool, typer.Option("--weights", help="Read the weights back out of the model file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is inside; with --weights also each matrix, as the model file itself says it."""
    with errors(as_json):
        found = inspect_path(path, weights)
        if as_json:
            print_json(found)
            return
        _print_facts(found)
        for key, columns in (
            ("chunks", ("package", "functions", "layers", "bytes")),
            ("signature", ("part", "way", "name", "dtype", "shape")),
            ("choices", ("role", "value", "reason", "source")),
            ("files", ("path", "bytes", "sha256")),
        ):
            if key in found:
                _print_rows(key, columns, found[key])
        if isinstance(found.get("placement"), list):
            _print_rows("placement, a forecast: see satchel coreml placement", PLACEMENT, found["placement"])
        if weights:
            _print_rows("weights", ("name", "shape", "bits", "bytes", "sha256"), found["tensors"])


PLACEMENT = (
    "package", "function", "target", "compute_units", "ops", "off_engine", "arithmetic_on_engine", "weights_on_engine",
    "crossings",
)  # fmt: skip


def _print_facts(found: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    for key, value in found.items():
        if isinstance(value, int) and key == "bytes":
            table.add_row(key, megabytes(value))
        elif isinstance(value, str | int):
            table.add_row(key, str(value))
    out.print(table)


def _print_rows(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    table = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(_shown(column, row[column]) for column in columns))
    out.print(table)


def _shown(column: str, value: Any) -> str:
    if column == "sha256":
        return f"{value[:12]}…"
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value)
