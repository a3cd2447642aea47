"""Plots as SVG inside a page: points or lines over positions, and bars. Colors are the page's, light or dark.

A series has the color and the mark of its number, so that two are told apart without color as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 960, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 14, 40
SPAN = 12  # powers of ten that a plot shows at most
BAR, BAR_GAP, GROUP_GAP, NAMES = 18, 4, 16, 290
MOST_LETTERS = 42  # of a name beside a bar

STYLE = """
:root { --s0: #0072b2; --s1: #d55e00; --s2: #009e73; --s3: #b3478b; --s4: #8a6d00; --s5: #5b5bd6; }
@media (prefers-color-scheme: dark) { :root { --s0: #56b4e9; --s1: #ff8a4c; --s2: #35c99b; --s3: #e89ac7;
  --s4: #e6c34a; --s5: #a5a5ff; } }
.axis { stroke: var(--line); } .prompt { stroke: var(--line); stroke-dasharray: 2 3; }
.limit { stroke: var(--middle); stroke-dasharray: 6 4; }
.line { fill: none; stroke-width: 1.4; stroke-linejoin: round; }
svg text.value { fill: var(--ink); } svg text.name { fill: var(--ink); }
.key { display: inline-block; margin: 0 1.2em .2em 0; white-space: nowrap; } .key svg { width: 26px; height: 10px;
  margin-right: .4em; vertical-align: baseline; }
"""
DASHES = ("", "7 3", "2 3", "9 3 2 3")


@dataclass(frozen=True)
class Series:
    """Values of one device.

    Attributes:
        number: of its color and its mark.
        name: of the device.
        points: (x, y); y of 0 lies on the lowest line, None where there is none.
    """

    number: int
    name: str
    points: tuple[tuple[float, float | None], ...]


def color(number: int) -> str:
    """The color of a series."""
    return f"var(--s{number % 6})"


def dash(number: int) -> str:
    """The mark of a line: series 7 to 12 are dashed otherwise than 1 to 6, which all differ from each other."""
    pattern = DASHES[(number + number // 6) % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def legend(names: Sequence[str]) -> str:
    """Which color and mark is which device."""
    keys = (
        f'<span class="key"><svg viewBox="0 0 26 10" aria-hidden="true"><line x1="0" x2="26" y1="5" y2="5" '
        f'style="stroke: {color(i)}; stroke-width: 3"{dash(i)}/></svg>{escape(name)}</span>'
        for i, name in enumerate(names)
    )
    return f"<p>{''.join(keys)}</p>"


@dataclass(frozen=True)
class _Scale:
    """Where values lie: x from `left` to `right`; y by powers of ten from `low` to `high`, 0 below them."""

    left: float
    right: float
    low: int
    high: int

    def x(self, value: float) -> float:
        span = max(self.right - self.left, 1e-9)
        return LEFT + (WIDTH - LEFT - RIGHT) * (value - self.left) / span

    def y(self, value: float) -> float:
        bottom, top = HEIGHT - BOTTOM, TOP
        if value <= 0:
            return bottom
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return bottom - 18 - (bottom - top - 18) * min(max(part, 0.0), 1.0)


def by_position(
    series: Sequence[Series], x_title: str, label: str, breaks: Sequence[float] = (), limit: float | None = None
) -> str:
    """Lines on a scale of powers of ten.

    Args:
        series: of each device.
        x_title: what x counts.
        label: for readers who do not see the plot.
        breaks: x at which something new begins, such as a prompt: a line is not drawn across.
        limit: drawn as a dashed line.
    """
    scale = _scale(series, limit)
    parts = [*_axes(scale, x_title)]
    parts += [
        f'<line class="prompt" x1="{scale.x(b):.1f}" x2="{scale.x(b):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        for b in breaks
        if scale.left < b <= scale.right
    ]
    if limit:
        y = scale.y(limit)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for one in series:
        parts += _line(one, scale, breaks)
    return _svg(HEIGHT, label, parts)


def _scale(series: Sequence[Series], limit: float | None) -> _Scale:
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points if y is not None and y > 0]
    high = math.ceil(math.log10(max([*ys, limit or 0], default=1.0) or 1.0))
    low = math.floor(math.log10(min(ys, default=10.0 ** (high - 2))))
    return _Scale(min(xs, default=0), max(xs, default=1), min(max(low, high - SPAN), high - 2), high)


def _axes(scale: _Scale, x_title: str) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    every = max(1, round((scale.high - scale.low) / 6))
    marks = [(scale.y(10.0**power), f"1e{power}") for power in range(scale.low, scale.high + 1, every)]
    for y, text in [*marks, (scale.y(0), "0")]:
        yield f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
    for value in round_steps(scale.left, scale.right):
        yield f'<text x="{scale.x(value):.1f}" y="{bottom + 17}" text-anchor="middle">{value}</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_title)}</text>'


def round_steps(start: float, end: float) -> list[int]:
    """About eight round numbers from start to end."""
    unit = 10 ** int(math.log10(max((end - start) / 8, 1)))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k * 9 > end - start)
    return list(range(math.ceil(start / step) * step, math.floor(end) + 1, step))


def _line(one: Series, scale: _Scale, breaks: Sequence[float]) -> Iterator[str]:
    edges = sorted(breaks)
    piece: list[str] = []
    drawn, part = [], 0
    for x, y in one.points:
        began = sum(1 for edge in edges[part:] if edge <= x)
        if (began or y is None) and piece:
            drawn.append(piece)
            piece = []
        part += began
        if y is not None:
            piece.append(f"{scale.x(x):.1f},{scale.y(y):.1f}")
    drawn.append(piece)
    style = f"stroke: {color(one.number)}"
    for points in drawn:
        if len(points) == 1:
            at_x, at_y = points[0].split(",")
            yield f'<circle cx="{at_x}" cy="{at_y}" r="2" style="fill: {color(one.number)}"/>'
        elif points:
            yield f'<polyline class="line" style="{style}"{dash(one.number)} points="{" ".join(points)}"/>'


@dataclass(frozen=True)
class Bar:
    """One bar: a series' number, its value (None where there is none), and the value in words."""

    number: int
    value: float | None
    text: str


def bars(groups: Sequence[tuple[str, Sequence[Bar]]], names: Sequence[str], label: str, whole: float = 0) -> str:
    """Horizontal bars in groups, each group on a scale of its own from 0.

    Args:
        groups: (title, a bar for each device).
        names: of the devices.
        label: for readers who do not see the plot.
        whole: what a bar over the whole width stands for; by default the largest of its group.
    """
    parts, y = [], 4
    for title, each in groups:
        parts.append(f'<text class="name" x="0" y="{y + 12}" font-weight="600">{escape(title)}</text>')
        y += 22
        most = whole or max((bar.value or 0 for bar in each), default=0) or 1
        for bar in each:
            parts += _bar(bar, names[bar.number], y, most)
            y += BAR + BAR_GAP
        y += GROUP_GAP
    return _svg(max(y - GROUP_GAP, 20), label, parts)


def _bar(bar: Bar, name: str, y: int, most: float) -> Iterator[str]:
    half = MOST_LETTERS // 2
    shown = name if len(name) <= MOST_LETTERS else f"{name[: half - 1]}…{name[-half:]}"  # what differs is often last
    middle, room = y + BAR - 5, WIDTH - NAMES - 130
    yield f'<text x="{NAMES - 10}" y="{middle}" text-anchor="end">{escape(shown)}<title>{escape(name)}</title></text>'
    width = room * min((bar.value or 0) / most, 1.0)
    if bar.value is not None:
        fill = f"fill: {color(bar.number)}"
        yield f'<rect x="{NAMES}" y="{y}" width="{max(width, 1):.1f}" height="{BAR}" rx="2" style="{fill}"/>'
    kind = "value" if bar.value is not None else "none"
    yield f'<text class="{kind}" x="{NAMES + width + 8:.1f}" y="{middle}">{escape(bar.text)}</text>'


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    said = escape(label, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{said}">\n' + "\n".join(parts) + "\n</svg>"
