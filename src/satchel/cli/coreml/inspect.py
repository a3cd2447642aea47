"""`satchel coreml inspect`: what any ML Program holds, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from satchel.cli.console import errors, megabytes, out, print_json
from satchel.runtime.coreml.inspection import inspect_program

OPS_A_LINE = 12


def command(
    package: Annotated[Path, typer.Argument(metavar="PACKAGE", help="A .mlpackage folder, or a .mlmodel file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the functions, ops, weights and duplicates of a Core ML program, and which systems can read it."""
    with errors(as_json):
        found = inspect_program(package)
        if as_json:
            print_json(found)
            return
        _print_facts(found)
        for function in found["functions"]:
            _print_function(function)
        _print_weights(found)
        _print_duplicates(found["duplicates"])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column in ("count", "elements", "blobs", "expanded", "bits/weight", "bytes", "copies", "wasted")
        table.add_column(column, justify="right" if right else "left")
    return table


def _print_facts(found: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    system = f"iOS {found['minimum_os']['iOS']}, macOS {found['minimum_os']['macOS']}"
    weights = found["weights"]
    facts = {
        "package": found["path"],
        "on disk": megabytes(found["bytes"]),
        "specification": f"{found['specification_version']} (from {system} on)",
        "weights": f"{megabytes(weights['blob_bytes'])} in blobs, {megabytes(weights['expanded_bytes'])} expanded, "
        f"{weights['elements']:,} numbers, {weights['bits_per_weight']:.2f} bits each",
        **{f["name"]: f"{megabytes(f['bytes'])}, {f['blobs']} blobs" for f in found["weight_files"]},
        **found["metadata"],
    }
    for key, value in facts.items():
        table.add_row(escape(key), escape(value))
    out.print(table)


def _print_function(function: dict[str, Any]) -> None:
    blocks = f", {function['ops_in_blocks']} of them in blocks" if function["ops_in_blocks"] else ""
    title = f"function {function['name']} ({function['opset']}, {function['op_count']} ops{blocks})"
    table = _table(escape(title), "", "name", "shape", "type", "as the app sees it")
    for kind in ("inputs", "outputs", "states"):
        for value in function[kind]:
            shape = " x ".join(map(str, value.get("shape", [])))
            table.add_row(kind[:-1], escape(value["name"]), shape, value.get("dtype", "?"), escape(_extra(value)))
    out.print(table)
    counts = [f"{op} {count}" for op, count in function["ops"].items()]
    for start in range(0, len(counts), OPS_A_LINE):
        out.print("  " + "  ".join(counts[start : start + OPS_A_LINE]), markup=False)


def _extra(value: dict[str, Any]) -> str:
    """What the description adds to the program's own type."""
    parts = [str(value["colors"]), "x".join(map(str, value["size"]))] if "size" in value else []
    if value.get("declared_dtype", value.get("dtype")) != value.get("dtype"):
        parts.append(value["declared_dtype"])
    parts += [f"{key} {value[key]}" for key in ("enumerated", "ranges", "default") if key in value]
    parts += ["optional"] if value.get("optional") else []
    parts += [value["description"]] if "description" in value else []
    return ", ".join(parts)


def _print_weights(found: dict[str, Any]) -> None:
    table = _table("weights", "type", "compression", "count", "elements", "blobs", "expanded", "bits/weight")
    for row in found["weights"]["by_scheme"]:
        table.add_row(row["dtype"], row["compression"], str(row["count"]), f"{row['elements']:,}", *_sizes(row))
    out.print(table)
    table = _table("largest", "name", "shape", "type", "compression", "blobs", "expanded", "bits/weight")
    for row in found["largest"]:
        shape = " x ".join(map(str, row["shape"]))
        table.add_row(escape(row["name"]), shape, row["dtype"], row["compression"], *_sizes(row))
    out.print(table)


def _sizes(row: dict[str, Any]) -> tuple[str, str, str]:
    return megabytes(row["blob_bytes"]), megabytes(row["expanded_bytes"]), f"{row['bits_per_weight']:.2f}"


def _print_duplicates(found: dict[str, Any]) -> None:
    twice, shared = found["stored_twice"], found["shared"]
    out.print(f"stored twice: {twice['count']} blobs, {twice['wasted_bytes']:,} bytes wasted", markup=False)
    for row in twice["largest"]:
        out.print(f"  {row['copies']} x {row['bytes']:,} bytes: {_uses(row)}", markup=False)
    out.print(f"shared: {shared['count']} blobs, {shared['bytes']:,} bytes that are stored once", markup=False)


def _uses(row: dict[str, Any]) -> str:
    more = len(row["uses"]) - 4
    return ", ".join(row["uses"][:4]) + (f" and {more} more" if more > 0 else "")
