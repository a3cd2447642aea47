"""`satchel coreml ...`: what can be done with any .mlpackage, ours or not, on any machine."""

from __future__ import annotations

import typer

from satchel.cli.coreml import check, diff, inspect, placement, run

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run, compare, inspect and check any Core ML program, on any machine.",
)

app.command("run")(run.command)
app.command("diff")(diff.command)
app.command("inspect")(inspect.command)
app.command("check")(check.command)
app.command("placement")(placement.command)
