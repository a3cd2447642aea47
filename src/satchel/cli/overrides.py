"""--set ROLE=VALUE, as `satchel plan` and `satchel export` take it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from satchel.runtime.errors import UsageError

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="ROLE=VALUE", help="Settle a choice of the plan (see `satchel plan`); repeat."),
]


def parse_overrides(settings: Sequence[str] | None) -> dict[str, str]:
    """Role -> value.

    Raises:
        UsageError: one is not of this form, or names a role that another has named.
    """
    found: dict[str, str] = {}
    for setting in settings or ():
        role, equals, value = setting.partition("=")
        if not (role and equals and value) or role in found:
            wanted = "ROLE=VALUE, each role once, such as linear=conv1x1"
            raise UsageError("--set", got=setting, wanted=wanted, hint="`satchel plan` lists roles and values")
        found[role] = value
    return found
