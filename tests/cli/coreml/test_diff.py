"""`satchel coreml diff` as a user types it."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb, normal, save
from typer.testing import CliRunner, Result

from satchel.cli import app
from satchel.runtime.coreml.depth_plot import MOST_POINTS, page, svg
from satchel.runtime.coreml.difference_report import Compared, Report
from satchel.runtime.coreml.measures import Measure
from satchel.runtime.coreml.tolerances import Tolerance
from satchel.runtime.mil.graph import Node


def diff(*arguments: object, code: int = 0) -> Result:
    """Runs the command in this process."""
    done = CliRunner().invoke(app, ["coreml", "diff", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def network(off: float = 0.0, dtype: type = np.float32) -> object:
    """Four layers; the third one's second weight may be off."""

    def build(x: Any) -> Any:
        for i in range(4):
            up, down = normal((32, 16), i, 0.3), normal((16, 32), i + 9, 0.3)
            down[0, 0] += off * (i == 2)
            weight = mb.const(val=down.astype(dtype), name=f"layers_{i}_down_weight")
            h = mb.tanh(x=mb.linear(x=x, weight=up.astype(dtype)))
            x = mb.add(x=x, y=mb.linear(x=h, weight=weight, name=f"down<{i}>"))
        return x

    return build


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("diff")
    one = {"x": ((2, 16), "float32")}
    both = {"main": network(), "other": network(0.5)}
    return {
        "a": save(folder, network(), one, name="a"),
        "b": save(folder, network(0.5), one, name="b"),
        "halves": save(folder, network(dtype=np.float16), {"x": ((2, 16), "float16")}, name="halves"),
        "longer": save(folder, network(), {"x": ((3, 16), "float32")}, name="longer"),
        "renamed": save(folder, lambda y: mb.relu(x=y), {"y": ((2, 16), "float32")}, name="renamed"),
        "several": save(folder, both, one, name="several"),
        "large": save(folder, lambda x: mb.square(x=mb.exp(x=x, name="e"), name="s"), {"x": ((1, 4), "float16")}),
    }


def test_equal_packages(packages: dict[str, Path]) -> None:
    done = diff(packages["a"], packages["a"])
    assert "every op agrees within its tolerance" in done.stdout and "16 ops compared" in done.stdout


def test_the_first_op_that_departs(packages: dict[str, Path]) -> None:
    done = diff(packages["a"], packages["b"], "--rows", 3, code=1)
    assert "first to depart: linear 'down<2>', layer 2 of 4 (counted from 0)" in done.stdout
    assert "input 0 [2, 32] is the same" in done.stdout
    assert re.search(r"input 1 \[16, 32\] differs by 0\.\d+ of its size", done.stdout)
    found = json.loads(diff(packages["a"], packages["b"], "--json", "--rows", 2, code=1).stdout)
    assert (found["equal"], found["first"]["name"], len(found["worst"])) == (False, "down<2>", 2)
    assert found["compared"] == 16 and found["departing"] == 6 and found["outputs"][0]["departs"]
    assert diff(packages["a"], packages["b"], "--tolerance", 0.9)
    assert diff(packages["several"], packages["several"], "--function", "main")
    several = diff(packages["several"], packages["b"], "--function", "main", code=1)
    assert "down<2>" in several.stdout


def test_precisions_and_types(packages: dict[str, Path]) -> None:
    assert "halves.mlpackage in fp16" in diff(packages["halves"], "--against", "fp16").stdout
    assert diff(packages["halves"], "--precision", "fp16", "--against", "fp32")
    assert diff(packages["a"], packages["halves"], "--against", "fp16")
    strict = diff(packages["halves"], "--against", "fp16", "--tolerance", 1e-7, "--json", code=1)
    assert json.loads(strict.stdout)["first"]["op"] == "linear"


def test_overflow_is_told_with_what_helps(packages: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.full((1, 4), 8, np.float32))
    done = diff(packages["large"], "--against", "fp16", "--inputs", tmp_path / "in.npz", code=1)
    assert "first to depart: square 's'" in done.stdout and "4 elements are not finite on one side" in done.stdout
    assert "square 's' in main overflows fp16" in done.stderr and "before it is squared" in done.stderr
    as_json = diff(packages["large"], "--against", "fp16", "--inputs", tmp_path / "in.npz", "--json", code=1)
    found = json.loads(as_json.stdout)
    assert found["overflows"][0] is None and found["overflows"][1]["largest_input"] == 2980
    assert found["first"]["error"] is None
    np.savez(tmp_path / "small.npz", x=np.full((1, 4), 1, np.float32))
    assert diff(packages["large"], "--against", "fp16", "--inputs", tmp_path / "small.npz")


def test_what_is_no_comparison(packages: dict[str, Path], tmp_path: Path) -> None:
    a = packages["a"]
    for arguments, says in (
        ((a,), "nothing to compare with"),
        ((a, "--against", "fp32"), "nothing to compare with"),
        ((a, packages["longer"]), "inputs of the two packages differ"),
        ((a, packages["renamed"]), "inputs of the two packages differ"),
        ((a, packages["b"], "--against", "torch", "--checkpoint", "smollm2"), "takes one package"),
        ((a, "--against", "torch"), "--checkpoint"),
        ((a, packages["b"], "--checkpoint", "smollm2"), "--checkpoint"),
        ((a, packages["b"], "--precision", "bf16"), "--precision"),
        ((a, packages["b"], "--against", "onnx"), "--against"),
        ((a, packages["b"], "--function", "nope"), "function"),
        ((a, packages["b"], "--inputs", tmp_path / "none.npz"), "file of inputs"),
        ((a, tmp_path / "none.mlpackage"), "Core ML model"),
        ((a, packages["b"], "--html", tmp_path / "no" / "page.html"), "cannot be written"),
    ):
        done = diff(*arguments, code=2)
        assert says in done.stderr, (arguments, done.stderr)
    np.savez(tmp_path / "other.npz", z=np.ones(3))
    error = json.loads(diff(a, packages["b"], "--inputs", tmp_path / "other.npz", "--json", code=2).stdout)
    assert error["error"] == "UsageError"


# --- the page ---


def parsed(text: str) -> ElementTree.Element:
    """The plot of a page; fails where the page is no well-formed document or asks for anything from elsewhere."""
    assert text.startswith("<!doctype html>") and "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)\s*=|@import|url\(", text)
    whole = text.split("\n", 1)[1].replace('<meta charset="utf-8">', "")
    whole = whole.replace('<meta name="viewport" content="width=device-width">', "")
    plot = ElementTree.fromstring(whole).find(".//svg")
    assert plot is not None
    return plot


def test_the_page_shows_every_op_by_its_depth(packages: dict[str, Path], tmp_path: Path) -> None:
    diff(packages["a"], packages["b"], "--html", tmp_path / "page.html", code=1)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    plot = parsed(text)
    points = plot.findall("circle")
    assert len(points) == 16 and [p.get("class") for p in points].count("beyond") == 6
    titles = [str(p.findtext("title")) for p in points]
    assert any(t.startswith("linear down<2>, layer 2 of 4") for t in titles)
    _, _, width, height = map(float, str(plot.get("viewBox")).split())
    places = [(float(str(p.get("cx"))), float(str(p.get("cy")))) for p in points]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    equal = [y for (_, y), p in zip(places, points, strict=True) if p.get("class") == "within"]
    assert len(set(equal)) == 1 and all(y <= equal[0] for _, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert "down&lt;2&gt;" in text and len(plot.findall("polyline")) == 1
    diff(packages["a"], packages["a"], "--html", tmp_path / "same.html")
    assert "Every op agrees" in (tmp_path / "same.html").read_text(encoding="utf-8")


def test_the_page_of_many_ops_and_of_none() -> None:
    def row(i: int) -> Compared:
        node = Node(i, "add", f"add_{i}", (f"add_{i}",), "float16", (1,), (), (), {}, i + 1, 2.0**-11)
        measure = Measure(float("inf") if i == 17 else 1e-3 * (i % 7))
        return Compared(node, node, measure, Tolerance(0.5, "a reason"), None, None)

    rows = tuple(row(i) for i in range(MOST_POINTS + 500))
    plot = ElementTree.fromstring(svg(rows))
    assert len(plot.findall("circle")) == MOST_POINTS
    assert [p.get("class") for p in plot.findall("circle")].count("beyond") == 1
    assert parsed(page(Report(("a", "b"), rows))).find("circle") is not None
    assert parsed(page(Report(("a", "b"), ()))).find("circle") is None
    assert not Report(("a", "b"), ()).equal
