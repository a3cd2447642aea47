"""`satchel parity BUNDLE`: golden data replayed here, under an emulator, on a board or on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from satchel.cli.console import Bars, errors, print_json
from satchel.cli.parity.outputs import print_record, target_of
from satchel.cli.validate import parse_limits
from satchel.runtime import strict_json
from satchel.runtime.bundle import open_bundle
from satchel.runtime.parity import validate
from satchel.runtime.parity_file import ParityRecord, parse_record, write_record
from satchel.runtime.parity_host import host_of


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .satchel folder.")],
    prompts: Annotated[int | None, typer.Option(metavar="N", help="Only the first N golden prompts.")] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="Another limit, such as quality.kl_mean=0.3, or =none; repeat for more.")
    ] = None,
    precision: Annotated[list[str] | None, typer.Option(help="Of Core ML's interpreter: fp32, fp16.")] = None,
    engine: Annotated[list[str] | None, typer.Option(help="Of Core ML: interpreter, or framework on a Mac.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR|FILE.json", help="Where parity-<device>.json goes.")
    ] = Path("."),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Replay a bundle's golden data, hold it to limits, and write parity-<device>.json with what ran it."""
    with errors(as_json):
        here: dict[str, Any] = {
            "limits": parse_limits(limit or []), "engines": engine or (), "precisions": precision or (),
        }  # fmt: skip
        with Bars(enabled=not as_json) as bars:
            value = on_this_machine(bundle, prompts=prompts, progress=bars, **here)
        records = [_written(value, output)]
        if as_json:
            print_json(value)
        else:
            for record, path in records:
                print_record(record, path)
        if not all(record.passed for record, _ in records):
            raise typer.Exit(1)


def on_this_machine(bundle: Path, **options: Any) -> dict[str, Any]:
    """Replays a bundle here; returns what goes into its parity file."""
    opened = open_bundle(bundle)
    report = validate(opened, **options)
    return report.record(host_of(opened.manifest.entry.format))


def _written(value: dict[str, Any], output: Path) -> tuple[ParityRecord, Path]:
    record = parse_record(strict_json.canonical(value), "the parity file")
    return record, write_record(value, target_of(output, record.device))
