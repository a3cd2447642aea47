"""`satchel coreml run`: a Core ML program on arrays, anywhere."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from satchel.cli.console import err, errors, out, print_json
from satchel.cli.coreml import inputs as given
from satchel.cli.coreml.outputs import figures, in_words, stacked, to_arrays, write_arrays
from satchel.coreml import Model, OverflowReport, Watch, load
from satchel.runtime.sizes import parse_size


def command(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage folder, or a .mlmodel file.")],
    inputs: Annotated[
        Path | None,
        typer.Option(help="An .npz file, an array an input. An array NAME@steps has the step as its first axis."),
    ] = None,
    outputs: Annotated[
        Path | None, typer.Option(help="The .npz file to write; of several steps NAME@steps, steps first.")
    ] = None,
    function: Annotated[str | None, typer.Option(help="Which function; the default one if not given.")] = None,
    precision: Annotated[str, typer.Option(help="fp32, or fp16: every fp16 value rounded as it is produced.")] = "fp32",
    steps: Annotated[int, typer.Option(min=1, help="Calls, one after the other, with the same state.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Of random ops, and of --random.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="For expanded weights, such as 2GB.")] = None,
    image: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="A picture file, for each image input.")
    ] = None,
    random: Annotated[bool, typer.Option("--random", help=f"Fill the other inputs: {given.RANDOM}.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run a Core ML program. Without inputs, say which it wants (exit code 2)."""
    with errors(as_json):
        model = load(package, None if max_memory is None else parse_size(max_memory, "--max-memory"))
        features = model.signature(function).inputs
        values: dict[str, Any] = given.read_arrays(inputs) if inputs else {}
        values |= given.read_images(image or [], features)
        present = {name.removesuffix(given.STEPS) for name in values}
        if random:
            drawn = given.random_values(model, function, seed or 0)
            values |= {n: v for n, v in drawn.items() if n not in present}
        elif not values and not all(f.optional for f in features.values()):
            _explain(model, function, as_json)
            raise typer.Exit(2)
        watch = Watch()
        calls, times = _run(model, values, steps, function=function, precision=precision, seed=seed, watch=watch)
        if outputs:
            write_arrays(outputs, stacked([to_arrays(c) for c in calls]))
        _report(calls[-1], times, watch.report, outputs, as_json)


def _run(
    model: Model, values: dict[str, Any], steps: int, *, function: str | None, **options: Any
) -> tuple[list[dict[str, Any]], list[float]]:
    """The outputs and the milliseconds of each call."""
    state = model.make_state(function) if model.signature(function).states else None
    calls, times = [], []
    for step in range(steps):
        data = given.at_step(values, step, steps)
        start = time.perf_counter()
        calls.append(model.predict(data, state, function=function, **options))
        times.append((time.perf_counter() - start) * 1e3)
    return calls, times


def _explain(model: Model, function: str | None, as_json: bool) -> None:
    """Says what the function takes and gives."""
    signature = model.signature(function)
    if as_json:
        parts = {"inputs": signature.inputs, "outputs": signature.outputs, "states": signature.states}
        print_json({"functions": list(model.functions), **{k: given.to_json(v) for k, v in parts.items()}})
        return
    out.print(given.table("inputs", signature.inputs))
    out.print(given.table("outputs", signature.outputs))
    if signature.states:
        out.print(given.table("states", signature.states))
    if len(model.functions) > 1:
        out.print(f"functions: {', '.join(model.functions)}", markup=False)
    wanted = '--inputs in.npz (np.savez("in.npz", NAME=array, ...)), --image NAME=FILE, or --random'
    err.print(f"next: {wanted}", markup=False, soft_wrap=True)


def _report(
    outputs: dict[str, Any], times: list[float], overflow: OverflowReport | None, path: Path | None, as_json: bool
) -> None:
    rows = [figures(name, array) for name, array in to_arrays(outputs).items()]
    if as_json:
        shown: dict[str, Any] = {"outputs": rows, "ms": [round(t, 3) for t in times]}
        print_json(shown | {"overflow": overflow.to_json() if overflow else None})
        return
    columns = ("shape", "dtype", "min", "mean", "max", "nan", "infinite")
    table = Table("output", *columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], *(_cell(row.get(column)) for column in columns))
    out.print(table)
    for name, value in outputs.items():
        if words := in_words(name, value):
            out.print(words, markup=False)
    out.print(_timing(times))
    if path:
        out.print(f"written: {path}", markup=False)
    if overflow:
        err.print(str(overflow), style="bold red", markup=False, soft_wrap=True)
        if overflow.remedy:
            err.print(f"  next:   {overflow.remedy}", markup=False, soft_wrap=True)


def _timing(times: list[float]) -> str:
    first = f"first call {times[0]:.1f} ms (with loading)"
    return first if len(times) == 1 else f"{first}, {len(times) - 1} more at {median(times[1:]):.1f} ms each (median)"


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " x ".join(map(str, value)) or "one"
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
