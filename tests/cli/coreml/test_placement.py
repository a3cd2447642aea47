"""`satchel coreml placement` as a user types it."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import ct, mb, save
from rule_programs import MODEL, dense, palette
from typer.testing import CliRunner, Result

from satchel.cli import app
from satchel.cli.coreml import placement as command
from satchel.runtime.coreml.placement import SETTINGS, forecast_package, page
from satchel.runtime.coreml.placement.bundles import forecast_bundle
from satchel.runtime.coreml.placement.page import WIDTH, pieces
from satchel.runtime.errors import SatchelError

UNITS = {"engine", "gpu", "cpu"}


def placement(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(app, ["coreml", "placement", *map(str, arguments)])
    assert done.exit_code == code, (done.output, done.exception)
    return done


def network(x: Any, s: Any) -> Any:
    """A palette, a sine, a state and a loop."""
    y = mb.conv(x=x, weight=palette((128, 128, 1, 1)), name="up<&>")
    y = mb.conv(x=mb.sin(x=y, name="wave"), weight=dense(128, 128, 1, 1), name="down")
    old = mb.read_state(input=s)
    mb.coreml_update_state(state=s, value=mb.add(x=old, y=y))
    less = lambda i, _: mb.less(x=i, y=3)  # noqa: E731
    step = lambda i, z: (mb.add(x=i, y=1), mb.mul(x=z, y=np.float16(2)))  # noqa: E731
    return mb.add(x=mb.while_loop(_cond=less, _body=step, loop_vars=(np.int32(0), y))[1], y=old, name="out")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = (1, 128, 1, 128)
    folder = tmp_path_factory.mktemp("placement")
    return save(folder, {"main": network, "other": network}, {"x": (shape, "float16")}, {"s": (shape, "float16")})


def test_text(package: Path) -> None:
    text = placement(package, "--target", "H14").stdout
    for said in ("forecast", "MLComputePlan", "function main", "function other", "NE12b", "wave", "A crossing is"):
        assert said in text
    assert "(2 of " in placement(package, "--rows", 2).stdout
    assert "leaves the engine out" in placement(package, "--compute-units", "cpuAndGPU").stdout


def test_json(package: Path) -> None:
    found = json.loads(placement(package, "--target", "H14", "--compute-units", "all", "--json").stdout)
    assert set(found) == {
        "path", "forecast", "target", "compute_units", "refused", "functions", "rules", "crossings_counted", "unjudged",
    }  # fmt: skip
    assert "MLComputePlan" in found["forecast"][0]
    main, other = found["functions"]
    assert {k: v for k, v in main.items() if k != "name"}.keys() == other.keys() - {"name"}
    assert set(main["settings"]) == set(SETTINGS)
    for setting in main["settings"].values():
        assert set(setting["ops"]) == set(setting["macs"]) == set(setting["weight_bytes"]) == UNITS
        assert sum(setting["ops"].values()) == main["op_count"] == len(main["ops"])
        assert all(0 <= share <= 1 for share in setting["engine_share"].values())
    shown = main["settings"]["all"]
    for unit in UNITS:
        ops = [op for op in main["ops"] if op["unit"] == unit]
        assert (len(ops), sum(op["macs"] for op in ops)) == (shown["ops"][unit], shown["macs"][unit])
    assert sum(run["ops"] for run in main["runs"]) == main["op_count"]
    assert shown["crossings"] == len(main["crossings"])
    assert shown["bytes_crossing"] == sum(c["bytes"] for c in main["crossings"])
    named = {rule for op in main["ops"] for rule in (op["rule"], *op["also"]) if rule}
    assert named == set(found["rules"])
    assert all((op["rule"] is None) == (op["unit"] == "engine") for op in main["ops"])
    assert all(rule["source"] and rule["confidence"] in "HML" for rule in found["rules"].values())


def test_the_same_package_gives_the_same_text(package: Path, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        placement(package, "--html", tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "b.html"]
    assert placement(package, "--json").stdout == placement(package, "--json").stdout


def test_the_page(package: Path) -> None:
    found = forecast_package(package, "H14")
    text = page(found)
    assert not re.search(r'(?:src|href)="|@import|<script', text)
    assert "prefers-color-scheme: dark" in text
    assert "up&lt;&amp;&gt;" in text
    assert "up<&>" not in text
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    assert len(drawings) == len(found.functions)
    for drawing, function in zip(drawings, found.functions, strict=True):
        units = {r.attrib["class"].split()[0] for r in drawing.findall("rect")}
        assert units == set(function.placements["cpuAndNeuralEngine"].units)
        assert {t.text.split(":")[0] for t in drawing.iter("title") if t.text} <= UNITS
    (function, _) = found.functions
    macs = pieces(function, function.placements["cpuAndNeuralEngine"].units, lambda op: op.macs, "multiply-accumulates")
    assert [round(p.width) for p in macs] == [WIDTH / 2, WIDTH / 2]
    ops = pieces(function, function.placements["cpuAndNeuralEngine"].units, lambda op: 1, "ops")
    assert sum(p.width for p in ops) == pytest.approx(WIDTH)
    assert all(a.unit != b.unit for a, b in pairwise(ops))


def test_a_plan_beside_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "macOS" in placement(package, "--compare", code=2).stderr
    out = next(op.outputs[0] for op in forecast_package(package).functions[0].ops if op.name == "wave")
    monkeypatch.setattr(command, "planned_units", lambda path, setting: {"main": {out: "gpu"}})
    text = placement(package, "--compare", "--target", "H14").stdout
    assert "function main against Core ML's plan: 0 of 1 ops agree" in text
    found = json.loads(placement(package, "--compare", "--target", "H14", "--json").stdout)["compared"]
    assert [(c["compared"], len(c["differences"])) for c in found] == [(1, 1), (0, 0)]
    assert found[0]["differences"][0]["rule"] == "NE12b"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--compute-units", "gpu"], "cpuAndGPU"),
        (["--target", "pixel-9"], "Core ML"),
        (["--target", "nothing"], "iOS17"),
        (["--html", "/nowhere/page.html"], "written"),
    ],
)
def test_bad_input(arguments: list[str], says: str, package: Path) -> None:
    assert says in placement(package, *arguments, code=2).stderr


def test_bad_packages(package: Path, tmp_path: Path) -> None:
    placement(tmp_path / "none.mlpackage", code=2)
    (tmp_path / "text.mlmodel").write_text("not a model")
    told = json.loads(placement(tmp_path / "text.mlmodel", "--json", code=2).stdout)
    assert told["error"] == "FormatError"


def test_altered_packages_are_placed_or_refused_never_a_crash(tmp_path: Path) -> None:
    shape = (1, 8, 1, 8)
    small = lambda x, s: mb.add(x=mb.conv(x=x, weight=palette()), y=mb.read_state(input=s))  # noqa: E731
    path = save(tmp_path, small, {"x": ((1, 4, 1, 8), "float16")}, {"s": (shape, "float16")})
    # Names that coremltools counts up differ with the tests before, and with them which bytes are altered.
    whole = ct.proto.Model_pb2.Model.FromString((path / MODEL).read_bytes()).SerializeToString(deterministic=True)
    rng, outcomes = np.random.default_rng(0), []
    for i in range(150):
        content = bytearray(whole[: rng.integers(len(whole))] if i % 5 == 0 else whole)
        for place in rng.integers(max(1, len(content)), size=int(rng.integers(1, 6))) if content else ():
            content[place] = rng.integers(256)
        (path / MODEL).write_bytes(content)
        try:
            page(forecast_package(path, "iphone-15-pro"))
            outcomes.append(True)
        except SatchelError:
            outcomes.append(False)
    assert 0 < sum(outcomes) < len(outcomes), "some of either kind"


def test_the_rows_of_a_bundle(package: Path) -> None:
    for options, device, target in (
        ({"compute": "all"}, "iphone-12", "iphone-12"),
        ({}, "a phone of one's own", "any device"),
    ):
        rows = list(forecast_bundle(package.parent, [package.name], options.get("compute", ""), device))
        assert [(r["function"], r["target"]) for r in rows] == [("main", target), ("other", target)]
        assert all(r["off_engine"] > 0 and r["crossings"] > 0 for r in rows)
        assert rows[0]["compute_units"] == options.get("compute", "cpuAndNeuralEngine")
