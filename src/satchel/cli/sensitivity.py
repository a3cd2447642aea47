"""`satchel sensitivity`: which linears of a model hurt when they are rounded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import Bars, errors, out, print_json
from satchel.runtime.errors import OutputError, UsageError

if TYPE_CHECKING:
    from satchel.export.sensitivity import Linear, Sensitivity

WORST = 20


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A Hugging Face folder, a GGUF file, a hub id, or smollm2.")
    ],
    device: Annotated[
        str, typer.Option("--device", "-d", help="Whose plan the weights follow (see `satchel devices`).")
    ] = "iphone-15-pro",
    format: Annotated[str | None, typer.Option(help="coreml, onnx or executorch; the device's own by default.")] = None,
    weights: Annotated[str | None, typer.Option(help="palette or int4; the device's own by default.")] = None,
    effort: Annotated[str, typer.Option(help="normal or high: how an export rounds.")] = "normal",
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Of a bundle, such as 1.2GB: what to choose bits by.")
    ] = None,
    max_kl: Annotated[
        float | None, typer.Option(metavar="NATS", help="KL divergence a token: what to choose bits by.")
    ] = None,
    context: Annotated[int | None, typer.Option(help="Tokens that the cache holds, which take their share.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Text to calibrate on instead of the model's own.")] = None,
    seed: Annotated[int, typer.Option(help="Of the calibration text.")] = 0,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what was measured there, for exports with the same --work.")
    ] = None,
    no_tokenizer: Annotated[bool, typer.Option("--no-tokenizer", help="A model that has no tokenizer.")] = False,
    max_memory: Annotated[str | None, typer.Option(help="Such as 2GB; less is slower.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Write a heat map, layer by kind.")] = None,
    recipe_out: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Write a recipe that settles the bits that were chosen.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure what rounding each linear costs at every width, and what a budget makes of that."""
    from satchel.export.sensitivity import sensitivity  # imports the exporters only when they are needed
    from satchel.export.sensitivity_plot import svg

    with errors(as_json):
        for path, ending in ((plot, ".svg"), (recipe_out, ".toml")):
            if path is not None and path.suffix != ending:
                raise UsageError("a file of this kind has another ending", got=path, wanted=f"FILE{ending}")
        with Bars(enabled=not as_json) as bars:
            found = sensitivity(
                model, device, format=format, weights=weights, effort=effort, max_size=max_size, max_kl=max_kl,
                context=context, calibration=calibration, seed=seed, work=work, tokenizer=not no_tokenizer,
                max_memory=max_memory, progress=bars,
            )  # fmt: skip
        for path, text in ((plot, svg(found)), (recipe_out, found.recipe())):
            if path is not None:
                _write(path, text)
        if as_json:
            print_json(found.to_json())
        else:
            _print(found)


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8", newline="\n")
        aside.replace(path)
    except OSError as error:
        raise OutputError("a file cannot be written", got=error, hint="choose another place") from error


def _print(found: Sensitivity) -> None:
    out.print(_by_kind(found))
    out.print(_worst(found))
    out.print(_heat_map(found))
    out.print(str(found.selection.summary()), markup=False)


def _by_kind(found: Sensitivity) -> Table:
    table = Table(
        "kind", "weights", "of loss", *(f"KL at {form}" for form in found.forms), "chosen", title="By kind",
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    weights, loss = sum(x.weights for x in found.linears), sum(x.loss for x in found.linears)
    for kind in found.kinds:
        these = [x for x in found.linears if x.kind == kind]
        sums = [sum(x.costs[form].loss for x in these if form in x.costs) for form in found.forms]
        shares = sum(x.weights for x in these) / weights, sum(x.loss for x in these) / (loss or 1)
        table.add_row(kind, *(f"{s:.1%}" for s in shares), *(f"{s:.3g}" for s in sums), _counted(these))
    return table


def _counted(linears: list[Linear]) -> str:
    forms = sorted({x.chosen for x in linears})
    return ", ".join(f"{form}: {sum(x.chosen == form for x in linears)}" for form in forms)


def _worst(found: Sensitivity) -> Table:
    table = Table(
        "linear", *(f"KL at {form}" for form in found.forms), "chosen", title="What hurts most at 4 bits",
        title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for x in found.worst(WORST):
        losses = (f"{x.costs[form].loss:.3g}" if form in x.costs else "-" for form in found.forms)
        table.add_row(x.name, *losses, x.chosen)
    return table


def _heat_map(found: Sensitivity) -> Table:
    from satchel.export.sensitivity_plot import shades

    shade = shades(found)
    cells = {(x.layer, x.kind): x for x in found.linears}
    table = Table(
        "layer", *found.kinds, title="Bits chosen; redder: a million weights lose more at 4 bits",
        title_justify="left", box=None, pad_edge=False,
    )  # fmt: skip
    for layer in sorted({x.layer for x in found.linears}):
        row = [cells.get((layer, kind)) for kind in found.kinds]
        table.add_row(str(layer), *(Text("") if x is None else _cell(x, shade[x.name]) for x in row))
    return table


def _cell(linear: Linear, shade: float) -> Text:
    red, rest = 70 + int(150 * shade), int(70 * (1 - shade))
    bits = linear.chosen.partition("-")[0]
    return Text(f"  {bits}  ", style=f"white on rgb({red},{rest},{rest})")
