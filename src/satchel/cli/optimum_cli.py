"""`optimum-cli export satchel`: `satchel export` for those who know optimum's other exporters.

Options, checks, errors and exit codes are those of `satchel export`, which is called with what was given. What differs
is what optimum's users are used to: the model is an option, the output may come last, and the task is "auto".
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser
from typing import Any

import typer
from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from satchel.cli.console import fail
from satchel.cli.export import command
from satchel.runtime.errors import UsageError

_APP = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_APP.command()(command)
EXPORT: Any = typer.main.get_command(_APP)
"""`satchel export` as click has it: its parameters, and what parses and runs it."""


class SatchelExportCommand(BaseOptimumCLICommand):
    """The subcommand, as optimum registers it."""

    COMMAND = CommandInfo(name="satchel", help="Export a model to app-ready 4-bit bundles: Core ML, ONNX, ExecuTorch.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Adds the parameters of `satchel export`."""
        parser.description = EXPORT.help
        parser.add_argument("folder", nargs="?", metavar="OUTPUT", help="Where the bundles go, as --output says it.")
        for parameter in EXPORT.params:
            _add(parser, parameter)

    def run(self) -> None:
        """Exports, and ends the process with the exit code of `satchel export`."""
        given = {name: value for name, value in vars(self.args).items() if name != "func"}
        folder = given.pop("folder")
        if folder is not None and given.setdefault("output", folder) != folder:
            error = UsageError("the output is given twice", got=f"{folder} and {given['output']}", wanted="one of them")
            sys.exit(fail(error, as_json="as_json" in given).exit_code)
        EXPORT.main(_arguments({"task": "auto", **given}), prog_name="optimum-cli export satchel")


def _add(parser: ArgumentParser, parameter: Any) -> None:
    """One parameter as an option; argparse keeps what is given as text, and leaves out what is not."""
    told = (getattr(parameter, "help", None) or "").replace("%", "%%")
    common: dict[str, Any] = {"dest": parameter.name, "default": SUPPRESS, "help": told}
    if parameter.param_type_name == "argument":
        parser.add_argument("-m", f"--{parameter.name}", required=True, metavar=parameter.metavar, **common)
    elif parameter.is_flag:
        parser.add_argument(*parameter.opts, action="store_true", **common)
        if parameter.secondary_opts:
            parser.add_argument(*parameter.secondary_opts, action="store_false", **{**common, "help": SUPPRESS})
    else:
        action = "append" if parameter.multiple else "store"
        name = parameter.metavar or parameter.name.upper()
        parser.add_argument(*parameter.opts, required=parameter.required, action=action, metavar=name, **common)


def _arguments(given: dict[str, Any]) -> list[str]:
    """What was given, as a command line of `satchel export`."""
    words: list[str] = []
    for parameter in EXPORT.params:
        value = given.get(parameter.name)
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            words += ["--", value]
        elif parameter.is_flag:
            words.insert(0, (parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for one in value if parameter.multiple else [value]:
                words = [parameter.opts[0], one, *words]
    return words
