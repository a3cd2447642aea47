"""`satchel validate`: is a bundle what it claims to be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from satchel.cli.console import Bars, errors, out, print_json
from satchel.runtime.bundle import Bundle, open_bundle
from satchel.runtime.errors import UsageError
from satchel.runtime.parity import ParityReport, Row, explain, validate


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .satchel folder.")],
    limit: Annotated[
        list[str] | None, typer.Option(help="Another limit, such as quality.kl_mean=0.3, or =none; repeat for more.")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Of Core ML's interpreter: fp32, fp16.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Of Core ML: interpreter, or framework on a Mac.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay a bundle's golden data, compare, print a table, and write parity.json into the bundle."""
    with errors(as_json):
        opened = open_bundle(bundle)
        with Bars(enabled=not as_json) as bars:
            report = judged(opened, bars, limits=_limits(limit or []), engines=engine or (), precisions=precision or ())
        if as_json:
            print_json(report.to_json())
        else:
            print_report(opened, report)
        if not report.passed:
            raise typer.Exit(1)


def judged(bundle: Bundle, bars: Bars, **options: Any) -> ParityReport:
    """Validates, and writes parity.json."""
    report = validate(bundle, progress=bars, **options)
    report.write(bundle.folder)
    return report


def _limits(given: list[str]) -> dict[str, float | None]:
    """`figure=value` -> a mapping; "none" lifts a limit."""
    limits: dict[str, float | None] = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            limits[name] = None if value == "none" else float(value)
        except ValueError as error:
            raise UsageError("a limit is not a number", got=text, wanted="such as quality.kl_mean=0.3") from error
    return limits


SHOWN = ("kl_mean", "kl_p99", "kl_max", "top1", "top1_or_tie", "difference_max", "greedy_agreement", "greedy_diverged")


def print_report(bundle: Bundle, report: ParityReport) -> None:
    """The figures as a table, a line each run, comparison and route; failures below it, each with where to look."""
    table = Table(
        "run", "against", "route", "KL mean", "KL p99", "KL max", "top-1", "or tie", "max diff", "greedy", "result"
    )
    against = {"lowering": "own weights, fp32", "quality": "reference model"}
    for key, rows in _grouped(report).items():
        run, comparison, route = key
        by_figure = {row.figure: row for row in rows}
        kl, shares = [_cell(by_figure.get(f)) for f in SHOWN[:3]], [_share(by_figure.get(f)) for f in SHOWN[3:5]]
        greedy = _share(by_figure.get("greedy_agreement"))
        result = "[green]good[/green]" if all(r.passed for r in rows) else "[bold red]beyond limits[/bold red]"
        table.add_row(
            run, against[comparison], route, *kl, *shares, _cell(by_figure.get("difference_max")), greedy, result
        )
    out.print(f"[bold]{bundle.folder.name}[/bold]  {'passed' if report.passed else 'FAILED'}")
    out.print(table)
    for row in report.failures:
        failure = explain(row, report)
        bound = failure.get("at_most", failure.get("at_least"))
        out.print(
            f"  {row.run}, {row.comparison}, {row.route}: {row.figure} is {row.value}, allowed {bound}", markup=False
        )
        out.print(f"    {failure['next']}", markup=False)


def _grouped(report: ParityReport) -> dict[tuple[str, str, str], list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault((row.run, row.comparison, row.route), []).append(row)
    return groups


def _cell(row: Row | None) -> str:
    return "" if row is None or row.value is None else f"{row.value:.2g}"


def _share(row: Row | None) -> str:
    return "" if row is None or row.value is None else f"{row.value:.1%}"
