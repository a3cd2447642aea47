"""What Satchel's pages have in common: one HTML document that needs nothing else, in the reader's light or dark."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from html import escape

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1d2023; --faint: #6b7280; --line: #d9dce0;
  --good: #2a6fb0; --bad: #c2331c; --middle: #7a6a2f; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #e6e8ea; --faint: #9aa3ad; --line: #363b41;
  --good: #6fb1ec; --bad: #ff7a5c; --middle: #d2bd6a; } }
body { background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
.faint { color: var(--faint); } .bad { color: var(--bad); } .scroll { overflow-x: auto; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 13px; } th { text-align: left; color: var(--faint); font-weight: 500; }
td, th { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.n { text-align: right; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font: 12px system-ui, sans-serif; }
"""

KIND = ' class="n"'


def document(title: str, style: str, parts: Iterable[str]) -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        style: CSS rules in addition to those that all pages have.
        parts: of the body, as HTML.
    """
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}{style}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], figures: Collection[str] = ()) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        columns: their titles.
        rows: of cells, which are whole <td> elements.
        figures: the columns whose titles stand at the right, as figures do.
    """
    head = "".join(f"<th{KIND if c in figures else ''}>{escape(c)}</th>" for c in columns)
    body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'
