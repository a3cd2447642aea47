"""`satchel coreml diff`: where two Core ML programs, or two precisions of one, part ways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import err, errors, out, print_json
from satchel.cli.coreml import inputs as given
from satchel.cli.coreml.outputs import write_page
from satchel.runtime.coreml.depth_plot import page
from satchel.runtime.coreml.difference import Side, compare
from satchel.runtime.coreml.difference_report import Compared, Report
from satchel.runtime.coreml.sample_inputs import given_inputs, sample_inputs
from satchel.runtime.errors import UsageError
from satchel.runtime.mil import Program, load
from satchel.runtime.mil.precision import PRECISIONS

REFERENCE = "torch"


def command(
    a: Annotated[Path, typer.Argument(metavar="A", help="A .mlpackage or .mlmodel: the reference.")],
    b: Annotated[Path | None, typer.Argument(metavar="[B]", help="Another one, of the same inputs.")] = None,
    precision: Annotated[str, typer.Option(help="Of A, and of B: fp32 or fp16.")] = "fp32",
    against: Annotated[
        str | None,
        typer.Option(help="fp32 or fp16: B's precision, A itself without B. torch: our decoder, for our own packages."),
    ] = None,
    inputs: Annotated[Path | None, typer.Option(help="An .npz file, an array an input; random without it.")] = None,
    function: Annotated[str | None, typer.Option(help="Which function; the default one if not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of random inputs and random ops.")] = 0,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="Error allowed everywhere, relative to an op's result, such as 0.01.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many of the worst ops to list.")] = 10,
    checkpoint: Annotated[
        str | None, typer.Option(help="With --against torch: the model that the package was made of.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with a plot of error by depth.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Walk both op by op on the same inputs; exit code 1 where one departs, with the first op that does."""
    with errors(as_json):
        _check(b, precision, against, checkpoint)
        if against == REFERENCE:
            from satchel.cli.coreml.reference import against_reference

            arrays = given.read_arrays(inputs) if inputs else None
            report = against_reference(a, checkpoint or "", arrays, function, precision, tolerance, seed)
        else:
            report = _compared(a, b, (precision, against or precision), inputs, function, seed, tolerance)
        if html:
            write_page(html, page(report))
        if as_json:
            print_json(report.to_json(rows))
        else:
            print_report(report, rows)
        if not report.equal:
            raise typer.Exit(1)


def _check(b: Path | None, precision: str, against: str | None, checkpoint: str | None) -> None:
    """UsageError where the options do not make two sides."""
    if precision not in PRECISIONS:
        raise UsageError("--precision", got=precision, wanted=PRECISIONS)
    if against not in (None, REFERENCE, *PRECISIONS):
        raise UsageError("--against", got=against, wanted=(*PRECISIONS, REFERENCE))
    if b is None and against in (None, precision):
        hint = (
            f"satchel coreml diff A B, or satchel coreml diff A --against {'fp16' if precision == 'fp32' else 'fp32'}"
        )
        raise UsageError("nothing to compare with", got="one package, one precision", wanted="two sides", hint=hint)
    if b is not None and against == REFERENCE:
        raise UsageError("--against torch takes one package", got=f"also {b}", wanted="no second package")
    if (checkpoint is not None) != (against == REFERENCE):
        hint = "--against torch --checkpoint smollm2, or a folder or GGUF file"
        raise UsageError("--checkpoint goes with --against torch", got=checkpoint, wanted="both or neither", hint=hint)


def _compared(
    a: Path, b: Path | None, precisions: tuple[str, str], inputs: Path | None, function: str | None, seed: int,
    limit: float | None,
) -> Report:  # fmt: skip
    first = load(a)
    second = first if b is None else load(b)
    _same_inputs(first, second, function)
    names = (a.name, b.name if b else a.name)
    if names[0] == names[1] and b:
        names = (str(a), str(b))
    sides = [
        Side(program, name if len(set(precisions)) == 1 else f"{name} in {precision}", function, precision)
        for program, name, precision in zip((first, second), names, precisions, strict=True)
    ]
    if inputs:
        arrays = given.read_arrays(inputs)
        values = [given_inputs(side.program.package, function, arrays) for side in sides]
    else:
        values = [sample_inputs(first.package, function, seed)] * 2
    return compare(sides[0], sides[1], values[0], values[1], limit=limit, seed=seed)


def _same_inputs(a: Program, b: Program, function: str | None) -> None:
    """UsageError where the two do not take the same inputs: names, shapes, and integers where the other has them."""
    described = [_described(p, function) for p in (a, b)]
    if described[0] != described[1]:
        hint = "both must take the same names and shapes; --function picks one of several"
        raise UsageError("inputs of the two packages differ", got=described[1], wanted=described[0], hint=hint)


def _described(program: Program, function: str | None) -> dict[str, str]:
    if function is not None and function not in program.functions:
        raise UsageError("function of the package", got=function, wanted=list(program.functions))
    return {
        s.name: f"{'float' if s.dtype.startswith('float') else s.dtype} {list(s.shape)}"
        for s in program.signature(function)[0]
    }


# --- as text ---

COLUMNS = ("op", "name", "layer", "depth", "error", "allowed", "largest diff", "relative", "SQNR dB", "growth")


def print_report(report: Report, rows: int) -> None:
    """The verdict, what points to the cause, and the worst ops."""
    out.print(f"{report.names[0]} against {report.names[1]}", style="bold", markup=False)
    counts = f"{len(report.rows)} ops compared, {report.only[0]} only in the first, {report.only[1]} only in the second"
    out.print(counts, markup=False)
    _print_first(report)
    for overflow in report.overflows:
        if overflow:
            err.print(str(overflow), style="bold red", markup=False, soft_wrap=True)
            err.print(f"  next:   {overflow.remedy}", markup=False, soft_wrap=True)
    table = Table(*COLUMNS, title="worst", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in report.worst(rows):
        table.add_row(*_cells(row), style="red" if row.departs else None)
    out.print(table)


def _print_first(report: Report) -> None:
    first = report.first
    for output in report.outputs:
        if output.departs:
            m = output.measure
            told = f"output {output.name} departs: error {m.error:.3g}, allowed {output.allowed.value:.3g}. {m.note}"
            out.print(told, style="bold red", markup=False, soft_wrap=True)
    if first is None:
        verdict = "every op agrees within its tolerance" if report.rows else "no op of one is found in the other"
        out.print(verdict, style="green" if report.equal else "bold red")
        return
    place = f", {first.layer}" if first.layer else ""
    out.print(f"first to depart: {first.a.op} '{first.a.name}'{place}", style="bold red", markup=False, soft_wrap=True)
    if first.b.name != first.a.name or first.b.op != first.a.op:
        out.print(f"  in the other: {first.b.op} '{first.b.name}'", markup=False)
    allowed = f"allowed {first.allowed.value:.3g}, {first.allowed.reason}"
    out.print(f"  error {first.measure.error:.3g}; {allowed}", markup=False, soft_wrap=True)
    for clue in (first.measure.note, *report.clues):
        if clue:
            out.print(f"  {clue}", markup=False, soft_wrap=True)
    out.print(f"  {sum(r.departs for r in report.rows)} ops depart in all")


def _cells(row: Compared) -> tuple[str, ...]:
    m = row.measure
    growth = "" if row.growth is None else f"{row.growth:.3g}"
    layer = "" if row.layer is None else str(row.layer.number)
    return (
        row.a.op, row.a.name, layer, str(row.a.depth), f"{m.error:.3g}", f"{row.allowed.value:.3g}", f"{m.largest:.3g}",
        f"{m.relative:.3g}", f"{m.sqnr:.1f}", growth,
    )  # fmt: skip
