"""Parity files side by side: from real runs of the tiny bundle, in Python and in the web app, and altered ones."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from satchel.runtime import strict_json
from satchel.runtime.errors import UsageError
from satchel.runtime.limits import LAYERS, LOWERING, QUALITY, TIES
from satchel.runtime.parity import validate
from satchel.runtime.parity_file import ParityRecord, parse_record, read_record
from satchel.runtime.report.comparison import compare
from satchel.runtime.report.page import limit_rows, page
from satchel.runtime.report.words import layers_of, sentences

WEB = Path(__file__).parent / "parity-web.json"
(BUNDLE,) = (Path(__file__).parents[3] / "sample_apps" / "vectors" / "bundle").glob("*.satchel")


@pytest.fixture(scope="module")
def value() -> dict[str, Any]:
    return validate(BUNDLE, prompts=2).record({"device": "here", "os": "<b>An OS</b>"})


def record(value: dict[str, Any], change: Callable[[dict[str, Any]], object] = lambda v: None) -> ParityRecord:
    altered = deepcopy(value)
    altered["host"]["device"] = "there"
    altered["passed"] = value["passed"] = True  # the tiny model's weights are beyond limits of quality
    change(altered)
    return parse_record(strict_json.canonical(altered), "altered")


def test_the_web_app_and_python_agree_on_one_bundle(value):
    web = read_record(WEB)
    found = compare([record(value), web])
    (part,) = found.parts
    assert part.agrees and part.common == len(web.runs[0].positions.rows) and part.logits < 0.5  # type: ignore[union-attr]


def positions(v: dict[str, Any]) -> dict[str, Any]:
    return v["runs"][0]["positions"]


def another_best(row: int, margin: float) -> Callable[[dict[str, Any]], None]:
    def change(v: dict[str, Any]) -> None:
        positions(v)["best"][row] = (positions(v)["best"][row] + 1) % 300
        positions(v)["margin"][row] = margin

    return change


def test_the_first_token_where_devices_part_is_named_and_a_near_tie_is_no_failure(value):
    start = positions(value)["starts"][1]
    positions(value)["margin"] = [9.0] * len(positions(value)["margin"])
    tie = TIES["int8"]
    near = compare([record(value), record(value, another_best(3, tie * 0.9))])
    assert near.agrees and near.parts[0].near_ties == 1 and near.parts[0].token is None
    assert "One near tie goes the other way" in " ".join(sentences(near.parts[0]))

    def both(v: dict[str, Any]) -> None:
        for row, margin in ((start + 5, tie * 1.1), (3, tie * 0.9), (start + 9, 5.0)):
            another_best(row, margin)(v)

    far = compare([record(value), record(value, both)])
    token = far.parts[0].token
    assert token is not None and (token.prompt, token.position) == (1, 5) and not far.agrees
    assert token.margin == pytest.approx(tie * 1.1) and token.ids[1] == (token.ids[0] + 1) % 300
    assert "part at prompt 1, position 5" in " ".join(sentences(far.parts[0]))


def test_answers_layers_and_logits_are_compared(value):
    layers = {"rows": [1, 2], "error": {"lowering": [0.1, 0.1, 0.1]}}
    value = deepcopy(value)
    value["runs"][0]["layers"] = layers
    limit = LAYERS["int8"][0]

    def change(v: dict[str, Any]) -> None:
        v["runs"][0]["layers"]["error"]["lowering"][1:] = [0.1 + limit * 1.1, None]
        v["runs"][0]["answers"]["quality"][1]["ids"][7] = 1 + v["runs"][0]["answers"]["quality"][1]["ids"][7]
        positions(v)["logits"][5] += 2.5

    part = compare([record(value), record(value, change)]).parts[0]
    assert (part.layer, part.layers) == (1, 3) and not part.agrees
    assert part.answer is not None and (part.answer.prompt, part.answer.position) == (1, 7)
    assert part.logits == pytest.approx(2.5, abs=1e-4)
    assert "first layer that is off otherwise is layer 1 of 3" in " ".join(sentences(part))
    within = compare(
        [record(value), record(value, lambda v: v["runs"][0]["layers"]["error"].update(lowering=[0.2] * 3))]
    )
    assert within.parts[0].layer is None and within.agrees


def test_a_run_names_its_own_first_layer_that_is_off(value):
    def layered(*errors: float | None) -> str | None:
        layers = {"rows": [1], "error": {"lowering": list(errors)}}
        return layers_of(record(value, lambda v: v["runs"][0].update(layers=layers)).runs[0])

    limit = LAYERS["int8"][0]
    assert "all 2 layers are within" in str(layered(0.1, limit)) and layers_of(record(value).runs[0]) is None
    for errors in ((0.1, limit * 1.01, 0.1), (0.1, None, 0.1)):
        assert "layer 1 of 3 is the first that is off" in str(layered(*errors))


def test_what_cannot_be_compared_is_said(value):
    def other(v: dict[str, Any]) -> None:
        v["bundle"] |= {"model": "another", "manifest": "0" * 64}
        positions(v)["starts"][1] += 1

    found = compare([record(value), record(value, other)])
    assert found.parts[0].common == 0 and not found.agrees and "different models" in found.notes[0]
    assert "Not compared token by token: there (2)." in page(found) and "say the same" not in page(found)
    old = compare(
        [record(value), record(value, lambda v: (v["runs"][0].pop("positions"), v["bundle"].pop("manifest")))]
    )
    assert len(old.notes) == 2 and "no positions in common" in " ".join(sentences(old.parts[0]))
    assert [s.name for s in compare([record(value)] * 3).sides] == ["there (1)", "there (2)", "there (3)"]
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([record(value)])


class Page(HTMLParser):
    """What a page refers to, and its headings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [str(v) for k, v in attributes if k in ("src", "href", "data", "action", "srcset")]


def test_the_page_needs_nothing_else_and_shows_every_side(value):
    value = deepcopy(value)
    value["runs"][0]["layers"] = {"rows": [1], "error": {"lowering": [0.1, 0.0, None], "quality": [0.1, 0.2, 0.3]}}
    emulated = record(value, lambda v: v["host"].update(emulated=True))
    text = page(compare([record(value), emulated, read_record(WEB)]))
    found = Page(text)
    assert not found.outside and "url(" not in text and "@import" not in text
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert "<b>An OS</b>" not in text and "&lt;b&gt;An OS&lt;/b&gt;" in text
    assert text.count("emulated: says nothing") == 3 and "prefers-color-scheme: dark" in text
    for heading in ("Where they part", "KL to the reference by position", "Top-1", "Error by layer", "Size and speed"):
        assert heading in text
    plots = [svg.partition("</svg>")[0] + "</svg>" for svg in text.split("<svg ")[1:]]
    for plot in plots:
        lines = ET.fromstring("<svg " + plot).iter("polyline")
        for line in lines:
            points = [tuple(map(float, p.split(","))) for p in line.get("points", "").split()]
            assert len(points) > 1 and all(0 <= x <= 960 and 0 <= y <= 300 for x, y in points)
            assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert text == page(compare([record(value), emulated, read_record(WEB)]))


def test_every_limit_has_a_row_with_its_reason():
    rows = list(limit_rows())
    wanted = sum(len(limits) + 1 for limits in LOWERING.values()) + sum(map(len, QUALITY.values()))
    assert len(rows) == wanted and all(all(row) for row in rows)
    assert ("own weights", "fp32", "kl_mean", "<= 1e-05", LOWERING["fp32"][0].reason) in rows
