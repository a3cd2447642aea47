"""`satchel devices`: the devices that have a profile, one of them, two side by side, and how to add another."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from satchel.cli.devices import compare, detect, listing, show, validate


class DevicesOrCommand(TyperGroup):
    """Takes a word that is no command for a device: `satchel devices pixel-9` shows it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As a group does, but for names of devices."""
        if args and args[0] not in self.commands:
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=DevicesOrCommand,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help="Devices that have a profile. `satchel devices NAME` shows one; without a name all are listed.",
)


@app.callback()
def options(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """List the devices that have a profile; `satchel devices NAME` shows one."""
    if context.invoked_subcommand is None:
        listing.print_all(as_json)
    elif as_json:
        raise typer.BadParameter("it goes to the end: satchel devices NAME --json", param_hint="--json")


app.command("show")(show.command)
app.command("compare")(compare.command)
app.command("validate")(validate.command)
app.command("detect")(detect.command)
