"""The table of docs/real-sizes.md, from the rows in real_sizes.json.  usage: real_sizes_table.py [ROWS...]

ROWS are files of what real_sizes.py printed, which are put among the others first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROWS = Path(__file__).with_name("real_sizes.json")
DOCUMENT = Path(__file__).parents[1] / "docs" / "real-sizes.md"
MARKS = BEGIN, END = "<!-- table: python benchmarks/real_sizes.py --write -->", "<!-- end of table -->"
EXPORTS = (
    "model", "parameters", "format", "device", "weights", "seconds", "CPU s", "peak MB", "of", "bundle MB",
    "below fp32", "forecast", "decode step",
)  # fmt: skip
STEPS = ("model", "format", "run", "steps", "s a step", "mean KL", "largest KL", "logits differ by", "same best id")


def exports(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each export."""
    return table(EXPORTS, [_export(row) for row in rows])


def _export(row: dict[str, Any]) -> list[str]:
    runs = row["runs"].values()
    fine = all(run["finite"] and not run["broken"] for run in runs)
    off = 100 * (row["forecast_bytes"] / row["bytes"] - 1)
    packages = row["opened"].get("packages", 1)
    form = row["format"] + (f", {packages} packages" if packages > 1 else "")
    seconds = f"{row['seconds']:,}" + ("\\*" if row["from_before"] else "")
    return [
        row["model"], f"{row['parameters'] / 1e9:.2f}B", form, row["device"], row["weights"], seconds,
        f"{row['cpu_seconds']:,}", f"{row['peak_mb']:,}", row["memory"], f"{row['bytes'] / 1e6:,.0f}",
        f"{row['below_fp32']:.1f}%", f"{off:+.1f}%", "ok" if fine else "beyond limits",
    ]  # fmt: skip


def steps(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each way in which a bundle was run."""
    return table(STEPS, [_step(row, name, run) for row in rows for name, run in row["runs"].items()])


def _step(row: dict[str, Any], name: str, run: dict[str, Any]) -> list[str]:
    return [
        row["model"], row["format"], name, str(run["steps"]), f"{run['step_seconds']:.2f}", f"{run['kl_mean']:.2g}",
        f"{run['kl_max']:.2g}", f"{run['difference_max']:.2g}", f"{run['top1_or_tie']:.0%}",
    ]  # fmt: skip


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    body = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in body)


def merged(old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows by parameters, model, format and effort; a new one in place of the old of the same."""
    found = {(r["parameters"], r["model"], FORMATS.index(r["format"]), r["effort"]): r for r in (*old, *new)}
    return [found[key] for key in sorted(found)]


FORMATS = ("coreml", "onnx", "executorch")


def write_document(new: Sequence[dict[str, Any]] = ()) -> None:
    """Puts rows into the file of rows, and makes the document's table anew."""
    rows = merged(kept(ROWS), new)
    ROWS.write_text(json.dumps(rows, indent=1) + "\n")
    replace_tables(DOCUMENT, MARKS, [exports(rows), loads_of(rows), steps(rows)])


def kept(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where there is none."""
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def loads_of(rows: Sequence[dict[str, Any]]) -> str:
    """How busy the machine was."""
    loads = [row["load"] for row in rows]
    return f"Load average at the end of each: {min(loads)} to {max(loads)}, on two cores."


def replace_tables(document: Path, marks: tuple[str, str], parts: Sequence[str]) -> None:
    """Puts parts between the two marks of a document."""
    begin, end = marks
    before, rest = document.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    document.write_text("\n\n".join((before + begin, *parts, end + after)), encoding="utf-8")


if __name__ == "__main__":
    write_document([json.loads(line) for path in sys.argv[1:] for line in Path(path).read_text().splitlines()])
