"""Sensitivities as a heat map, layer by kind of linear: an SVG that needs nothing else, colors as the reader's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from satchel.export.sensitivity import Linear, Sensitivity

CELL_WIDTH, CELL_HEIGHT = 92, 18
LEFT, TOP, BOTTOM = 52, 64, 14
SPAN = 3.0
"""Powers of ten from the faintest cell to the darkest."""

STYLE = """
svg { background: #fdfdfc; color-scheme: light dark; } text { fill: #1d2023; font: 12px system-ui, sans-serif; }
.faint { fill: #6b7280; } .cell { fill: #c2331c; } .frame { fill: none; stroke: #d9dce0; }
@media (prefers-color-scheme: dark) { svg { background: #16181b; } text { fill: #e6e8ea; } .faint { fill: #9aa3ad; }
  .cell { fill: #ff7a5c; } .frame { stroke: #363b41; } }
"""


def per_million(linear: Linear) -> float:
    """Loss at 4 bits for each million weights, so that large linears do not look worse for being large."""
    return linear.loss / linear.weights * 1e6


def shades(found: Sensitivity) -> dict[str, float]:
    """Linear -> 0 to 1, on a scale of powers of ten that ends at the worst."""
    worst = max(map(per_million, found.linears), default=0.0)
    return {linear.name: _shade(per_million(linear), worst) for linear in found.linears}


def _shade(value: float, worst: float) -> float:
    return min(max(1 + math.log10(value / worst) / SPAN, 0.0), 1.0) if value > 0 and worst > 0 else 0.0


def svg(found: Sensitivity) -> str:
    """The heat map; the same sensitivities give the same text."""
    kinds = found.kinds
    layers = max((linear.layer for linear in found.linears), default=-1) + 1
    width, height = LEFT + CELL_WIDTH * len(kinds) + 12, TOP + CELL_HEIGHT * layers + BOTTOM
    title = f"{found.model_id}: loss of each linear at 4 bits ({found.weights})"
    parts = [
        f'<text x="12" y="20">{escape(title)}</text>',
        f'<text class="faint" x="12" y="37">KL a million weights; each shade fainter by a power of ten is '
        f"{1 / SPAN:.0%} less. Digits are the bits chosen: {escape(found.selection.budget)}.</text>",
        *(
            f'<text class="faint" x="{LEFT + CELL_WIDTH * (i + 0.5)}" y="{TOP - 8}" text-anchor="middle">'
            f"{escape(kind)}</text>"
            for i, kind in enumerate(kinds)
        ),
        *(
            f'<text class="faint" x="{LEFT - 8}" y="{TOP + CELL_HEIGHT * (i + 0.72):.1f}" text-anchor="end">{i}</text>'
            for i in range(layers)
        ),
        *_cells(found, kinds),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    return "\n".join([head, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", *parts, "</svg>", ""])


def _cells(found: Sensitivity, kinds: list[str]) -> Iterator[str]:
    shade = shades(found)
    for linear in found.linears:
        x, y = LEFT + CELL_WIDTH * kinds.index(linear.kind), TOP + CELL_HEIGHT * linear.layer
        box = f'x="{x}" y="{y}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}"'
        told = ", ".join(f"{form} bits {cost.loss:.3g}" for form, cost in sorted(linear.costs.items()))
        yield f'<rect class="cell" {box} fill-opacity="{shade[linear.name]:.3f}"/>'
        yield f'<rect class="frame" {box}><title>{escape(f"{linear.name}: KL at {told}")}</title></rect>'
        yield (
            f'<text x="{x + CELL_WIDTH / 2 - 1}" y="{y + CELL_HEIGHT * 0.72:.1f}" text-anchor="middle">'
            f"{linear.chosen.partition('-')[0]}</text>"
        )
