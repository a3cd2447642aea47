"""Files of rules are strict, and say where each rule comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from satchel.devices.errors import DeviceError
from satchel.devices.rulebook import CONFIDENCES, ENGINES, SEVERITIES, load_rules, read_rules, rule_files

GOOD = """
[[rule]]
id = "NE01"
check = "some_check"
severity = "error"
confidence = "H"
ios = 18
engines = ["H13"]
statement = "a"
why = "b"
advice = "c"
source = "d"
[rule.parameters]
most = 5
names = ["conv"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_rules_that_come_with_satchel() -> None:
    assert rule_files() == ["arm-cpu", "choices", "core-ml", "core-ml-targets", "neural-engine"]
    for name in rule_files():
        rules = load_rules(name)
        assert len({rule.id for rule in rules}) == len(rules) >= 5
        for rule in rules:
            assert rule.severity in SEVERITIES
            assert rule.confidence in CONFIDENCES
            assert set(rule.engines) <= set(ENGINES)
    with pytest.raises(DeviceError, match="neural-engine"):
        load_rules("gpu")


def test_a_rule_and_its_parameters(tmp_path: Path) -> None:
    (rule,) = read_rules(written(tmp_path, GOOD))
    assert (rule.id, rule.ios, rule.engines, rule.reason) == ("NE01", 18, ("H13",), "")
    assert rule.number("most") == 5
    assert rule.names("names") == ("conv",)
    for wrong in (lambda: rule.number("names"), lambda: rule.names("most"), lambda: rule.numbers("least")):
        with pytest.raises(DeviceError, match="NE01"):
            wrong()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('why = "b"', 'why = "b"\nbecause = "c"', "because"),
        ('why = "b"', "", "missing"),
        ('severity = "error"', 'severity = "fatal"', "severity"),
        ('confidence = "H"', 'confidence = "high"', "confidence"),
        ('engines = ["H13"]', 'engines = ["A17"]', "engines"),
        ('engines = ["H13"]', 'engines = "H13"', "engines"),
        ("ios = 18", 'ios = "18"', "ios"),
        ("ios = 18", "ios = true", "ios"),
        ('id = "NE01"', 'id = "rule one"', "NE07"),
        ('advice = "c"', 'advice = " "', "advice"),
        ("most = 5", "most = true", "most"),
        ("most = 5", "most = [1.5]", "most"),
        ("[rule.parameters]\nmost = 5", "parameters = 5", "parameters"),
        ('check = "some_check"', 'check = "none"', "reason"),
        ('check = "some_check"', 'check = "some_check"\nreason = "none"', "reason"),
        ('why = "b"', 'why = "b"\nleaves = "op"', "both or neither"),
        ('why = "b"', 'why = "b"\nunit = "cpu"', "both or neither"),
        ('why = "b"', 'why = "b"\nleaves = "op"\nunit = "dsp"', "unit"),
        ('why = "b"', 'why = "b"\nleaves = "all"\nunit = "cpu"', "leaves"),
        ("[[rule]]", "title = 1\n[[rule]]", "title"),
        ("[[rule]]", "[rule]", "keys"),
        ("[[rule]]", "[[rule", "cannot read"),
    ],
)
def test_a_rule_with_anything_unknown_is_refused(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new)
    if new == "parameters = 5":
        text = text.replace('names = ["conv"]', "")
    with pytest.raises(DeviceError, match=says) as caught:
        read_rules(written(tmp_path, text))
    assert caught.value.got is not None


def test_ids_are_each_there_once_and_in_order(tmp_path: Path) -> None:
    for second in ("NE01", "NE00"):
        with pytest.raises(DeviceError, match="in order"):
            read_rules(written(tmp_path, GOOD + GOOD.replace("NE01", second)))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="cannot read"):
        read_rules(tmp_path / "none.toml")
