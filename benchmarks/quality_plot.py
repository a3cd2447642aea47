"""Quality against size, as SVG: usage: quality_plot.py compare.json TITLE OUT.svg"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 900, 520
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 68, 56
TICKS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
LINE = 15  # between two names
COLORS = {"Satchel": "#2a6fb0", "llama.cpp": "#7a5aa6", "onnxruntime-genai": "#c2331c", "coremltools": "#8a6d00"}
STYLE = (
    "text { font: 12px system-ui, sans-serif; fill: #3b4148; } .title { font-size: 15px; fill: #1d2023; } "
    ".line { stroke: #d9dce0; } .error { stroke-width: 2; stroke-opacity: .6; }"
)


def svg(title: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """KL on a log scale against bits a weight, embedding included; the bars are two standard errors each way.

    Args:
        title: the model's name.
        found: name -> figures, as compare.py prints them.
    """
    bits = [f["bits"] for f in found.values()]
    losses = [f["both"]["kl"] for f in found.values()]
    left, right = math.floor(min(bits) * 4 - 0.5) / 4, math.ceil(max(bits) * 4 + 2) / 4
    low = max((t for t in TICKS if t <= min(losses)), default=TICKS[0])
    high = min((t for t in TICKS if t >= max(losses)), default=TICKS[-1])

    def x(value: float) -> float:
        return LEFT + (value - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (math.log(min(max(value, low), high)) - math.log(low)) / (math.log(high) - math.log(low))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [f'<text class="title" x="{LEFT}" y="24">{escape(title)}: what 4 bits lose, against size</text>']
    for tick in (t for t in TICKS if low <= t <= high):
        parts.append(f'<line class="line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for quarter in range(round(left * 4), round(right * 4) + 1, 2):
        at = x(quarter / 4)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{quarter / 4:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">bits a weight, '
                 "embedding included</text>")  # fmt: skip
    parts.append('<text x="12" y="44">KL divergence, nats a token</text>')
    points = sorted(((x(f["bits"]), y(f["both"]["kl"]), name) for name, f in found.items()), key=lambda p: p[1])
    parts += [_bar(x(f["bits"]), y, f["both"], _color(name)) for name, f in found.items()]
    parts += _points(points)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return f'{head}<style>{STYLE}</style><rect width="100%" height="100%" fill="#fdfdfc"/>{"".join(parts)}</svg>\n'


def _color(name: str) -> str:
    return next((color for maker, color in COLORS.items() if name.startswith(maker)), "#3b4148")


def _bar(at: float, y: Any, both: Mapping[str, float], color: str) -> str:
    top, bottom = y(both["kl"] + 2 * both["kl_se"]), y(both["kl"] - 2 * both["kl_se"])
    return f'<line class="error" x1="{at:.1f}" x2="{at:.1f}" y1="{top:.1f}" y2="{bottom:.1f}" stroke="{color}"/>'


def _points(points: list[tuple[float, float, str]]) -> list[str]:
    """A dot and a name each; the name beside or below it, where there is room."""
    parts: list[str] = []
    taken = [(x - 6, x + 6, y) for x, y, _ in points]
    for at, height, name in points:
        left, right, text = _place(at, height, 7 * len(name), taken)
        taken.append((left, right, text))
        color = _color(name)
        parts.append(f'<circle cx="{at:.1f}" cy="{height:.1f}" r="5" fill="{color}"/>')
        parts.append(f'<text x="{left:.1f}" y="{text + 4:.1f}" style="fill:{color}">{escape(name)}</text>')
    return parts


def _place(at: float, height: float, width: float, taken: list[tuple[float, float, float]]) -> tuple[float, ...]:
    """(left, right, middle) of a name: the first place that nothing has taken, going outwards from its dot."""
    for step in range(0, 10 * LINE, 3):
        for left in (at + 10, at - 10 - width):
            for text in (height - step, height + step):
                free = all(abs(text - y) >= LINE or left > b or left + width < a for a, b, y in taken)
                if free and left > LEFT and left + width < WIDTH:
                    return left, left + width, text
    return at + 10, at + 10 + width, height


def main() -> None:
    """Command line."""
    source, title, out = sys.argv[1:]
    Path(out).write_text(svg(title, json.loads(Path(source).read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
