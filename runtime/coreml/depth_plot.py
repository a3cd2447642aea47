"""The report of a difference as one page: a plot of error by depth, and a table of the worst ops.

The page needs nothing else: the plot is SVG in it, a name appears where the pointer rests on a point, and colors follow
the reader's choice of light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from satchel.runtime.coreml.difference_report import Compared, Report
from satchel.runtime.coreml.page import document, table

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 16, 44
MOST_POINTS = 4000
TABLE_ROWS = 40

STYLE = """
.axis { stroke: var(--line); } .within { fill: var(--good); fill-opacity: .55; } .beyond { fill: var(--bad); }
.allowed { fill: none; stroke: var(--middle); stroke-dasharray: 5 4; } .first { stroke: var(--bad); }
circle:hover { stroke: var(--ink); stroke-width: 2; }
"""


def page(report: Report) -> str:
    """A whole HTML document."""
    title = f"{report.names[0]} against {report.names[1]}"
    parts = [
        f"<h1>{escape(title)}</h1>", _verdict(report), "<h2>Error by depth</h2>", svg(report.rows), LEGEND,
        "<h2>The worst ops</h2>", _table(report.worst(TABLE_ROWS)),
    ]  # fmt: skip
    return document(title, STYLE, parts)


LEGEND = (
    '<p class="faint">A point is an op that computes; ops that only move values are left out. Depth is the number of '
    "ops on the longest way from an input. The dashed line is the largest error allowed. Points on the lowest line are "
    "equal to the last bit; points on the highest are not finite on one side, or of another shape.</p>"
)


def _verdict(report: Report) -> str:
    first = report.first
    counted = f"{len(report.rows)} ops compared; {report.only[0]} and {report.only[1]} ops have no partner."
    lines = [f'<p class="faint">{counted}</p>']
    lines += [
        f'<p class="bad">Output {escape(o.name)} departs: error {o.measure.error:.3g}, allowed {o.allowed.value:.3g}. '
        f"{escape(o.measure.note)}</p>"
        for o in report.outputs
        if o.departs
    ]
    if first is None:
        agreed = "Every op agrees within its tolerance." if report.rows else "No op of one is found in the other."
        return "\n".join([f"<p>{agreed}</p>", *lines])
    where = f", {escape(str(first.layer))}" if first.layer else ""
    lines[:0] = [
        f'<p><b class="bad">{escape(first.a.op)} <code>{escape(first.a.name)}</code></b>{where} is the first op whose '
        f"result departs: error {first.measure.error:.3g}, allowed {first.allowed.value:.3g} "
        f"({escape(first.allowed.reason)}). {escape(first.measure.note)}</p>"
    ]
    clues = "".join(f"<li>{escape(clue)}</li>" for clue in report.clues)
    overflows = "".join(f'<p class="bad">{escape(str(o))}. {escape(o.remedy)}.</p>' for o in report.overflows if o)
    return "\n".join((lines[0], f"<ul>{clues}</ul>" if clues else "", overflows, *lines[1:]))


# --- the plot ---


@dataclass(frozen=True)
class Scale:
    """Where things lie in the plot.

    Attributes:
        deepest: depth at the right end.
        low, high: powers of ten at the bottom and the top; errors of 0 lie below, infinite ones above.
    """

    deepest: int
    low: int
    high: int

    def x(self, depth: float) -> float:
        """Pixels from the left."""
        return LEFT + (WIDTH - LEFT - RIGHT) * depth / self.deepest

    def y(self, error: float) -> float:
        """Pixels from the top."""
        bottom, top = HEIGHT - BOTTOM, TOP
        if error == 0:
            return bottom
        if not math.isfinite(error):
            return top
        part = (math.log10(error) - self.low) / (self.high - self.low)
        return bottom - 14 - (bottom - top - 28) * min(max(part, 0.0), 1.0)


def svg(rows: Sequence[Compared]) -> str:
    """Error by depth."""
    shown = [r for r in rows if not r.moves or r.departs]
    errors = [r.measure.error for r in shown if r.measure.error and math.isfinite(r.measure.error)]
    low = math.floor(math.log10(min(errors, default=1e-7)))
    limits = [r.allowed.value for r in shown if r.allowed.value]
    high = max(math.ceil(math.log10(max([*errors, *limits], default=1.0))), low + 2)
    scale = Scale(max((r.a.depth for r in shown), default=1), low, high)
    parts = [*_axes(scale), _allowed(shown, scale), *_points(shown, scale)]
    label = "Error of each op by its depth in the program"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">\n' + "\n".join(parts) + "\n</svg>"


def _axes(scale: Scale) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    every = max(1, (scale.high - scale.low) // 6)
    marks = [(scale.y(10.0**power), f"1e{power}") for power in range(scale.low, scale.high + 1, every)]
    for y, text in [*marks, (scale.y(0), "0"), (scale.y(math.inf), "infinite")]:
        yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for depth in _round_steps(scale.deepest):
        yield f'<text x="{scale.x(depth):.1f}" y="{bottom + 18}" text-anchor="middle">{depth}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">depth</text>'


def _round_steps(end: int) -> list[int]:
    """About six round numbers from 0 to `end`."""
    unit = 10 ** int(math.log10(max(end / 6, 1)))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k * 7 > end)
    return list(range(0, end + 1, step))


def _allowed(rows: Iterable[Compared], scale: Scale) -> str:
    """The largest tolerance of each depth, as a line."""
    most: dict[int, float] = {}
    for row in rows:
        if row.allowed.value:
            most[row.a.depth] = max(most.get(row.a.depth, 0.0), row.allowed.value)
    points = " ".join(f"{scale.x(d):.1f},{scale.y(v):.1f}" for d, v in sorted(most.items()))
    return f'<polyline class="allowed" points="{points}"/>'


def _points(rows: Sequence[Compared], scale: Scale) -> Iterator[str]:
    first = next((row for row in rows if row.departs), None)
    for row in _thinned(rows):
        x, y, kind = scale.x(row.a.depth), scale.y(row.measure.error), "beyond" if row.departs else "within"
        if row is first:
            yield f'<line class="first" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        where = f", {row.layer}" if row.layer else ""
        title = f"{row.a.op} {row.a.name}{where}: error {row.measure.error:.3g}, allowed {row.allowed.value:.3g}"
        radius = 5 if row is first else 3
        yield f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{escape(title)}</title></circle>'


def _thinned(rows: Sequence[Compared]) -> Sequence[Compared]:
    """Not more than a browser draws at ease: the first that departs, others that do, the greatest errors; in order."""
    if len(rows) <= MOST_POINTS:
        return rows
    first = next((row for row in rows if row.departs), None)
    ranked = sorted(rows, key=lambda r: (r is first, r.departs, r.measure.error), reverse=True)
    kept = {id(row) for row in ranked[:MOST_POINTS]}
    return [row for row in rows if id(row) in kept]


# --- the table ---

COLUMNS = ("op", "name", "layer", "depth", "error", "allowed", "largest difference", "relative", "SQNR dB", "growth")


def _table(rows: Iterable[Compared]) -> str:
    return table(COLUMNS, map(_cells, rows))


def _cells(row: Compared) -> Iterator[str]:
    m = row.measure
    kind = ' class="bad"' if row.departs else ""
    for text in (row.a.op, row.a.name):
        yield f"<td{kind}><code>{escape(text)}</code></td>"
    yield f"<td>{row.layer.number if row.layer else ''}</td>"
    growth = "" if row.growth is None else f"{row.growth:.3g}"
    numbers = (f"{m.error:.3g}", f"{row.allowed.value:.3g}", f"{m.largest:.3g}", f"{m.relative:.3g}", f"{m.sqnr:.1f}")
    for text in (str(row.a.depth), *numbers, growth):
        yield f'<td class="n">{text}</td>'
