"""`satchel coreml check`: what is known to fail or misbehave on devices, looked for in any ML Program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from satchel.cli.console import errors, out, print_json
from satchel.cli.coreml.packages import packages_at
from satchel.runtime.coreml.checks import Finding, Report, check_package

STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}
CONFIDENCE = {"H": "high", "M": "medium", "L": "low"}
NAMES_SHOWN = 3


def command(
    package: Annotated[
        Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage folder, a .mlmodel file, or a bundle.")
    ],
    target: Annotated[
        str | None,
        typer.Option(help="A device (satchel devices), a system such as iOS17 or macOS15, or an engine: H13 to H18."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List what is known to fail or misbehave on devices. Exit code 1 where a rule of severity "error" is broken."""
    with errors(as_json):
        paths, aim = packages_at(package, target)
        reports = [check_package(path, aim) for path in paths]
        if as_json:
            records = [report.to_json() for report in reports]
            print_json(records[0] if paths == [package] else {"packages": records})
        else:
            for report in reports:
                _print(report)
    if any(report.failed for report in reports):
        raise typer.Exit(1)


def _print(report: Report) -> None:
    for group in report.grouped():
        _print_group(group)
    for rule in dict.fromkeys(u.rule for u in report.unjudged):
        reasons = [u.reason for u in report.unjudged if u.rule == rule]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        out.print(f"not judged  {rule}: {reasons[0]}{more}", markup=False)
    counts = ", ".join(f"{report.count(s)} {s}{'' if report.count(s) == 1 else 's'}" for s in STYLES)
    target = report.target.name or "any device"
    out.print(f"{report.path} for {target}: {counts}; {len(report.judged)} rules", markup=False)


def _print_group(group: list[Finding]) -> None:
    first = group[0]
    rule, found = first.rule, first.found
    out.print(f"{first.severity:<8}{rule.id}  {rule.statement}", style=STYLES[first.severity], markup=False)
    if found.function or found.op_type:
        out.print(f"        where:  {_where(group)}", markup=False)
    distinct = list(dict.fromkeys(f.found.what for f in group))
    more = f" (and {len(distinct) - NAMES_SHOWN} other values)" if len(distinct) > NAMES_SHOWN else ""
    out.print(f"        found:  {'; '.join(distinct[:NAMES_SHOWN])}{more}", markup=False)
    engines = f", for {', '.join(rule.engines)}" if rule.engines else ""
    for label, text in (
        ("why", rule.why),
        ("do", rule.advice),
        ("source", f"{rule.source} (confidence: {CONFIDENCE[rule.confidence]}{engines})"),
    ):
        out.print(f"        {label + ':':<8}{text}", markup=False)


def _where(group: list[Finding]) -> str:
    """Such as "prefill, 150 x conv: q_proj, k_proj, v_proj and 147 more"."""
    found = group[0].found
    names = [f.found.op for f in group if f.found.op]
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    counted = f"{len(group)} x {found.op_type}" if len(group) > 1 else found.op_type
    place = ", ".join(p for p in (found.function, counted) if p)
    return f"{place}: {', '.join(names[:NAMES_SHOWN])}{more}" if names else place
