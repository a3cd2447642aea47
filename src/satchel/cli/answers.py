"""How the answers of modules with a task are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from satchel.cli.console import out


def print_answers(found: Any, names: Sequence[str]) -> None:
    """An answer for each text or picture; `names` of the pictures, which are told where there are several."""
    answers = found if isinstance(found, list | np.ndarray) else [found]
    for place, one in enumerate(answers):
        if len(names) == len(answers) > 1:
            out.print(f"{names[place]}:", markup=False, style="bold")
        _print(one)


def plain(found: Any) -> Any:
    """As JSON: arrays as lists, maps of pictures as their size."""
    if isinstance(found, dict):
        return {k: _size(v) if k == "map" else plain(v) for k, v in found.items()}
    if isinstance(found, list):
        return [plain(one) for one in found]
    return found.tolist() if isinstance(found, np.ndarray) else found


def _size(values: np.ndarray) -> dict[str, int]:
    return {"height": values.shape[0], "width": values.shape[1]}


def _print(one: Any) -> None:
    """One answer: rows of names and scores, or whatever it is."""
    if isinstance(one, np.ndarray):
        one = one.tolist()
    if isinstance(one, list) and not one:
        out.print("nothing", style="dim")
    elif isinstance(one, list) and all(isinstance(row, dict) and "box" in row for row in one):
        _print_boxes(one)
    elif isinstance(one, dict) and "map" in one:
        _print_map(one)
    elif isinstance(one, dict):
        _print_row(one)
    elif isinstance(one, list) and len(one) > 8 and all(isinstance(x, float) for x in one):
        out.print(f"{len(one)} numbers: {', '.join(f'{x:.4f}' for x in one[:8])}, ...", markup=False)
    elif isinstance(one, list):
        for part in one:
            _print(part)
    else:
        out.print(str(one), markup=False)


def _print_row(one: Mapping[str, Any]) -> None:
    score = f"{one['score']:.3f}  " if "score" in one else ""
    name = next((str(one[key]) for key in ("answer", "text", "token") if key in one), "")
    out.print(f"{score}{one.get('label', '')} {name}".strip(), markup=False)
    for part in (*one.get("segments", ()), *one.get("words", ())) if "text" in one else ():  # of speech
        out.print(f"{part['start']:8.2f} s to {part['end']:.2f} s  {part['text'].strip()}", markup=False)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left")
    return table


def _print_boxes(rows: Sequence[Mapping[str, Any]]) -> None:
    table = _table("label", "score", "left", "top", "right", "bottom")
    for row in rows:
        table.add_row(Text(row["label"]), f"{row['score']:.3f}", *(f"{edge:.0f}" for edge in row["box"]))
    out.print(table)


def _print_map(one: Mapping[str, Any]) -> None:
    height, width = one["map"].shape
    if "segments" not in one:
        out.print(f"depth of {width} x {height} pixels, from {one['smallest']:.4g} to {one['largest']:.4g}")
        return
    table = _table("label", "share")
    for row in one["segments"]:
        table.add_row(Text(row["label"]), f"{row['share']:.1%}")
    out.print(table)
