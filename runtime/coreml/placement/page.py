"""A forecast of placement as one page: strips of the program colored by unit, and tables of what leaves the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from satchel.runtime.coreml import page as frame
from satchel.runtime.coreml.placement.report import COUNTED, Forecast, FunctionForecast, OpFigures
from satchel.runtime.coreml.placement.tables import by_type, crossing_rows, departures, setting_rows
from satchel.runtime.coreml.placement.units import UNITS

WIDTH, STRIP, TITLE, MARK = 960, 30, 20, 10
SMALLEST = 1.2  # pixels that a stretch off the engine takes at least
MARKED = 6.0  # a stretch that is narrower gets a mark above it
MOST_PIECES = 4000  # as many as a browser draws at ease
TOLD_APART = 3.0  # pixels from which on neighbours get different shades
ADVICE = ("why", "what to do")

STYLE = """
:root { --engine: #2a6fb0; --gpu: #b7791f; --cpu: #c2331c; }
@media (prefers-color-scheme: dark) { :root { --engine: #6fb1ec; --gpu: #e8bd5c; --cpu: #ff7a5c; } }
.engine { fill: var(--engine); background: var(--engine); } .gpu { fill: var(--gpu); background: var(--gpu); }
.cpu { fill: var(--cpu); background: var(--cpu); } .other { fill-opacity: .72; }
h3 { font-size: .95rem; margin: 1.4rem 0 .3rem; } rect:hover, path:hover { fill: var(--ink); }
svg text.title { fill: var(--ink); }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 1em; border-radius: 2px; }
tr:has(td.shown) { font-weight: 600; }
"""


def page(forecast: Forecast, rows: int = 40) -> str:
    """A whole HTML document, with at most `rows` rows in each table of ops."""
    title = f"{forecast.path}: forecast of placement for {forecast.target.name or 'any device'}"
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="faint">{escape(note)}</p>' for note in forecast.notes)]
    parts += [f'<p class="bad">{escape(f.rule.id)}: {escape(f.found.what)}</p>' for f in forecast.refused]
    for function in forecast.functions:
        parts += _function(forecast, function, rows)
    return frame.document(title, STYLE, parts)


def _function(forecast: Forecast, function: FunctionForecast, rows: int) -> Iterator[str]:
    yield f"<h2>Function <code>{escape(function.name)}</code></h2>"
    yield _table(setting_rows(function), shown=forecast.setting)
    yield _legend(forecast.setting)
    yield svg(function, forecast.setting)
    leaving = departures(function, forecast.setting)
    if leaving:
        yield "<h3>What is not on the engine, and why</h3>"
        yield _table([{k: v for k, v in row.items() if k not in ADVICE} for row in leaving[:rows]])
        for rule, row in {row["rule"]: row for row in leaving}.items():
            yield f'<p><b>{rule}</b> {escape(row["why"])} <span class="faint">{escape(row["what to do"])}</span></p>'
    yield "<h3>By type of op</h3>"
    yield _table(by_type(function, forecast.setting)[:rows])
    crossed = crossing_rows(function, forecast.setting)
    if crossed:
        yield f"<h3>{len(crossed)} crossings</h3>" if len(crossed) > 1 else "<h3>One crossing</h3>"
        yield _table(crossed[:rows])
        yield f'<p class="faint">{escape(COUNTED)}</p>'


def _legend(setting: str) -> str:
    keys = "".join(f'<span class="key {unit}"></span>{unit}' for unit in UNITS)
    note = "Ops in the program's order; a triangle marks a narrow stretch on another unit."
    return f"<p>With <code>{escape(setting)}</code>: {keys} <span class='faint'>{note}</span></p>"


def _table(rows: Sequence[dict[str, str]], shown: str = "") -> str:
    """Rows of the same columns, those of figures to the right; the row that has `shown` in it in bold."""
    columns = list(rows[0]) if rows else []
    figures = {c for c in columns if all(row[c][:1].isdigit() or not row[c] for row in rows)}
    return frame.table(columns, ([_cell(row[c], c in figures, shown) for c in columns] for row in rows), figures)


def _cell(text: str, figure: bool, shown: str) -> str:
    kind = frame.KIND if figure else ' class="shown"' if shown and text == shown else ""
    return f"<td{kind}>{escape(text)}</td>"


# ---- the strips ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A stretch of a strip.

    Attributes:
        unit: that it is colored by.
        start, width: in pixels.
        title: what the pointer shows.
    """

    unit: str
    start: float
    width: float
    title: str


def svg(function: FunctionForecast, setting: str) -> str:
    """Three strips: a stretch as wide as it has ops, as it computes, and as it reads weights."""
    units = function.placements[setting].units
    strips: tuple[tuple[str, Callable[[OpFigures], int], str], ...] = (
        ("ops, each of the same width", lambda op: 1, "ops"),
        ("multiply-accumulates", lambda op: op.macs, "multiply-accumulates"),
        ("bytes of weights, those that several ops read for each of them", lambda op: op.weight_bytes, "bytes"),
    )
    parts: list[str] = []
    top = 0
    for title, size, what in strips:
        total = sum(map(size, function.ops))
        if total:
            parts += _strip(pieces(function, units, size, what), f"{title}: {total:,}", top, marked=what == "ops")
            top += TITLE + MARK + STRIP
    label = f"Where the ops of {function.name} run"
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {top + 4}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>'


def pieces(
    function: FunctionForecast, units: Sequence[str], size: Callable[[OpFigures], int], what: str
) -> list[Piece]:
    """A piece for each op that has a size, or for each stretch of one unit where they are too many."""
    sized = [(op, unit, size(op)) for op, unit in zip(function.ops, units, strict=True) if size(op)]
    total = sum(s for *_, s in sized) or 1
    merge = what == "ops" or len(sized) > MOST_PIECES
    groups = [list(g) for _, g in groupby(sized, key=lambda s: s[1])] if merge else [[s] for s in sized]
    found, start = [], 0.0
    for group in groups:
        amount = sum(s for *_, s in group)
        width = WIDTH * amount / total
        ops = f"{group[0][0].type} {group[0][0].name}"
        ops += f" to {group[-1][0].name}" if len(group) > 1 else ""
        found.append(
            Piece(group[0][1], start, width, f"{group[0][1]}: {ops}, {amount:,} {what} ({amount / total:.2%})")
        )
        start += width
    return found


def _strip(found: Sequence[Piece], title: str, top: int, marked: bool) -> Iterator[str]:
    yield f'<text class="title" x="0" y="{top + TITLE - 5}">{escape(title)}</text>'
    y = top + TITLE + (MARK if marked else 0)
    height = STRIP + (0 if marked else MARK) - 4
    for i, piece in enumerate(found):
        width = max(piece.width, SMALLEST if piece.unit != found[0].unit else 0.0)
        kind = f"{piece.unit} other" if i % 2 and not marked and width >= TOLD_APART else piece.unit
        box = f'x="{piece.start:.2f}" y="{y}" width="{width:.2f}" height="{height}"'
        yield f'<rect class="{kind}" {box}><title>{escape(piece.title)}</title></rect>'
        if marked and piece.unit != "engine" and width < MARKED:
            x = min(max(piece.start + width / 2, 4), WIDTH - 4)
            path = f"M{x:.2f} {y - 1}l-4 -7h8z"
            yield f'<path class="{piece.unit}" d="{path}"><title>{escape(piece.title)}</title></path>'
