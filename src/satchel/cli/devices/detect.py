"""`satchel devices detect`: a profile of this machine, or of an Android phone that is attached."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from satchel.cli.console import err, errors, print_json
from satchel.devices.chip import known_chip
from satchel.devices.detect.android import android_facts
from satchel.devices.detect.facts import Facts
from satchel.devices.detect.host import host_facts, profile_text
from satchel.devices.detect.toml import write_profile
from satchel.devices.profile import device_names, load_device
from satchel.runtime.errors import UsageError


def command(
    serial: Annotated[
        str | None, typer.Argument(metavar="[SERIAL]", help="With --adb: which phone, as adb devices names it.")
    ] = None,
    adb: Annotated[bool, typer.Option("--adb", help="Ask an attached Android phone, not this machine.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.toml", help="Write there, not to standard output.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that exists.")] = False,
    measure: Annotated[bool, typer.Option(help="Measure how fast this machine reads memory; takes a second.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a profile of this machine, or of an attached Android phone, to plan for."""
    with errors(as_json):
        if serial is not None and not adb:
            raise UsageError("a phone's serial is for --adb", got=serial, hint=f"--adb {serial}")
        facts = android_facts(serial) if adb else host_facts()
        text = profile_text(facts, measure=measure and not adb)
        if output is not None:
            write_profile(text, output, overwrite=overwrite)
        if as_json:
            print_json(
                {"title": facts.title, "path": str(output) if output else None, "arm64": facts.arm64, "profile": text}
            )
        elif output is None:
            sys.stdout.write(text)
        _say(facts, output)


def _say(facts: Facts, output: Path | None) -> None:
    """What is worth knowing, on standard error."""
    if not facts.arm64:
        err.print(f"{facts.title} is not arm64: its profile has no CPU features, and plans for it are of little use")
    chip = known_chip(facts.chip_title, *facts.reported)
    listed = [name for name in device_names() if chip and load_device(name).chip == chip]
    if listed:
        err.print(f"devices with this chip are listed: {', '.join(listed)}", markup=False)
    if output is not None:
        err.print(f"wrote {output}: satchel devices validate {output} explains it", markup=False)
