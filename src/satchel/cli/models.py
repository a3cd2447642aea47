"""`satchel models`: the families that can be exported, or one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import errors, out, print_json

if TYPE_CHECKING:
    from satchel.export.families.catalogue import Entry


def command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="A family, a model_type, or a model's id.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/families.md.")] = False,
) -> None:
    """List the families of models that can be exported, their options, and what each was checked against."""
    with errors(as_json):
        from satchel.export.families.catalogue import entries, find  # imports what reads checkpoints

        found = [find(name)] if name else entries()
        if as_json:
            print_json(found[0].to_json() if name else [entry.to_json() for entry in found])
        elif markdown:
            typer.echo(page(found), nl=False)
        elif name:
            _print_one(found[0])
        else:
            _print_all(found)


def _print_all(found: list[Entry]) -> None:
    table = Table("family", "models", "reads", "checked against", box=box.SIMPLE_HEAD, pad_edge=False)
    for entry in found:
        table.add_row(entry.name, _models(entry), _reads(entry), entry.checked)
    out.print(table)
    versions = _versions()
    out.print(f"All are written as {', '.join(found[0].writes)}. Checked with {versions}.", markup=False)
    out.print("`satchel models NAME` lists the options of one.", markup=False)


def _print_one(entry: Entry) -> None:
    out.print(Text(entry.name, "bold"))
    table = Table(box=None, show_header=False, pad_edge=False)
    for label, values in rows(entry):
        table.add_row(Text(label), Text(values))
    out.print(table)


def rows(entry: Entry) -> list[tuple[str, str]]:
    """(what, how it is) for each thing that is known of a family."""
    known = [
        ("model_type", ", ".join(entry.model_types)),
        ("models", ", ".join(entry.models)),
        ("text models", ", ".join(entry.text)),
        ("always", ", ".join(entry.always)),
        ("on or off", ", ".join(entry.options)),
        ("reads", ", ".join(entry.reads)),
        ("writes", ", ".join(entry.writes)),
        ("checked against", entry.checked),
    ]
    return [(label, values) for label, values in known if values]


def page(found: list[Entry]) -> str:
    """The families as a page of Markdown."""
    versions = _versions()
    parts = [
        "# Families",
        "",
        "Made by `satchel models --markdown`. Of each family of text models tiny random ones, with every option on and",
        "off, are run in eager torch, ONNX, ExecuTorch and Core ML programs (three forms, interpreted), prefill and",
        "decode; in fp32 their logits are within 1e-4 of what they are checked against (`pytest -m families`).",
        f"Packages: {versions}.",
    ]
    for entry in found:
        parts += ["", f"## {entry.name}", *(f"- {label}: {values}" for label, values in rows(entry))]
    return "\n".join(parts) + "\n"


def _versions() -> str:
    from satchel.export.families.catalogue import HELD_AGAINST

    return ", ".join(f"{package} {version}" for package, version in HELD_AGAINST.items())


def _models(entry: Entry) -> str:
    return ", ".join(model.rpartition("/")[2] for model in entry.models) or f"with {' or '.join(entry.text)}"


def _reads(entry: Entry) -> str:
    return ", ".join(kind.split()[0] for kind in entry.reads).replace("Hugging", "HF")
