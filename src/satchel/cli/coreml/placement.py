"""`satchel coreml placement`: a forecast of where the ops of any ML Program run, op by op."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from satchel.cli.console import errors, out, print_json
from satchel.cli.coreml.compute_plan import planned_units
from satchel.cli.coreml.outputs import write_page
from satchel.cli.coreml.packages import packages_at
from satchel.runtime.coreml.placement import (
    DEFAULT_SETTING,
    SETTINGS,
    Forecast,
    FunctionForecast,
    forecast_package,
    page,
)
from satchel.runtime.coreml.placement.comparison import Comparison, compare
from satchel.runtime.coreml.placement.report import COUNTED
from satchel.runtime.coreml.placement.tables import by_type, crossing_rows, departures, setting_rows
from satchel.runtime.coreml.placement.units import ENGINE
from satchel.runtime.errors import UsageError

LEFT = ("compute units", "op", "rule", "unit", "names", "found", "confidence", "from", "to")


def command(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage folder, a .mlmodel file, or a bundle.")
    ],
    target: Annotated[
        str | None,
        typer.Option(help="A device (satchel devices), a system such as iOS17 or macOS15, or an engine: H13 to H18."),
    ] = None,
    compute_units: Annotated[
        str, typer.Option(help="Of MLModelConfiguration: cpuAndNeuralEngine, all, cpuAndGPU or cpuOnly.")
    ] = DEFAULT_SETTING,
    rows: Annotated[int, typer.Option(min=1, help="Rows that each table has at most.")] = 12,
    html: Annotated[Path | None, typer.Option(help="Write a page with a picture of the program by unit.")] = None,
    compared: Annotated[
        bool, typer.Option("--compare", help="On a Mac: hold it against Core ML's own plan, MLComputePlan.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Forecast which ops run on the engine, the GPU or the CPU, by which rule, and what crosses between them."""
    with errors(as_json):
        paths, aim = packages_at(package, target)
        if html and len(paths) > 1:
            raise UsageError("--html is for one package", got=f"{len(paths)} packages", wanted="one of the bundle's")
        records = [_tell(path, aim, compute_units, rows, html, compared, as_json) for path in paths]
        if as_json:
            print_json(records[0] if paths == [package] else {"packages": records})


def _tell(
    package: Path, target: str | None, setting: str, rows: int, html: Path | None, compared: bool, as_json: bool
) -> dict[str, Any]:
    """Of one package: prints it, unless its record is asked for."""
    found = forecast_package(package, target, setting)
    comparisons = _comparisons(found, package) if compared else None
    if html:
        write_page(html, page(found))
    if not as_json:
        _print(found, rows)
        for comparison in comparisons or ():
            _print_comparison(comparison, rows)
    return found.to_json() | ({} if comparisons is None else {"compared": [c.to_json() for c in comparisons]})


def _comparisons(found: Forecast, package: Path) -> list[Comparison]:
    planned = planned_units(package, found.setting)
    return [compare(f, found.setting, planned.get(f.name, {})) for f in found.functions]


def _print(found: Forecast, rows: int) -> None:
    out.print(f"{found.path} for {found.target.name or 'any device'}: a forecast", style="bold", markup=False)
    for note in found.notes:
        out.print(note, style="cyan", markup=False)
    for finding in found.refused:
        text = f"{finding.rule.id}  {finding.rule.statement} Found: {finding.found.what}"
        out.print(text, style="bold red", markup=False)
    for function in found.functions:
        _print_function(function, found.setting, rows)
    out.print(COUNTED, style="cyan", markup=False)


def _print_function(function: FunctionForecast, setting: str, rows: int) -> None:
    name = f"function {function.name}: {len(function.ops):,} ops that run, {function.constants:,} constants"
    out.print(_table(setting_rows(function), name))
    out.print(_table(by_type(function, setting), f"{setting}, by type of op", rows))
    leaving = departures(function, setting)
    if not leaving:
        said = (
            "no rule moves an op off the engine" if ENGINE in SETTINGS[setting] else f"{setting} leaves the engine out"
        )
        out.print(said + "\n", style="green")
        return
    short = [{k: v for k, v in row.items() if k not in ("why", "what to do")} for row in leaving]
    out.print(_table(short, "not on the engine", rows))
    for rule, row in {row["rule"]: row for row in leaving}.items():
        out.print(f"  {rule}  {row['why']} {row['what to do']}", markup=False)
    out.print(_table(crossing_rows(function, setting), "crossings", rows))


def _table(rows: Sequence[dict[str, str]], title: str, most: int | None = None) -> Table:
    more = f" ({most} of {len(rows)})" if most and len(rows) > most else ""
    table = Table(title=escape(title + more), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in rows[0] if rows else ("none",):
        table.add_column(column, justify="left" if column in LEFT else "right")
    for row in rows[:most]:
        table.add_row(*map(escape, row.values()))
    return table


def _print_comparison(found: Comparison, rows: int) -> None:
    unplanned = f"; of {found.unplanned} Core ML says nothing" if found.unplanned else ""
    out.print(
        f"function {found.function} against Core ML's plan: {found.agreeing} of {found.compared} ops agree{unplanned}",
        style="bold",
        markup=False,
    )
    counts = [{"from": f, "to": p, "ops": f"{n:,}"} for (f, p), n in sorted(found.counts.items())]
    out.print(_table(counts, "forecast (from) and plan (to)"))
    listed = [{"op": d.op, "names": d.name, "from": d.forecast, "to": d.planned, "rule": d.rule or "none"}
              for d in found.differences]  # fmt: skip
    if listed:
        out.print(_table(listed, "not as forecast", rows))
