"""`satchel parity ...`: what a bundle says, here, on another machine or on a phone, and devices side by side."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from satchel.cli.parity import compare, emulator, limits, run


class _BundleFirst(TyperGroup):
    """A group whose commands may be left out: `satchel parity BUNDLE` is `satchel parity run BUNDLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` in front of anything that is no command and no question about the group."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_BundleFirst,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Hold a bundle to its golden data here, under an emulator, on a board or a phone; put devices side by side.",
)

app.command("run")(run.command)
app.command("compare")(compare.command)
app.command("limits")(limits.command)
app.command("emulator")(emulator.command)
