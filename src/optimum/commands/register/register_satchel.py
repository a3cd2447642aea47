"""Where `optimum-cli` looks for subcommands of other packages: this adds `optimum-cli export satchel`.

`optimum` is a namespace that several packages share, so neither this folder nor those above have an __init__.py.
"""

from optimum.commands.export.base import ExportCommand

from satchel.cli.optimum_cli import SatchelExportCommand

REGISTER_COMMANDS = [(SatchelExportCommand, ExportCommand)]
