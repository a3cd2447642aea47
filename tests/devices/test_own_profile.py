"""A user's own profile: whatever is wrong with it is refused, and all of it is named."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satchel.devices.errors import DeviceError
from satchel.devices.profile import PROFILES, device_names, examine_profile, load_device, parse_profile, read_profile
from satchel.devices.strict_toml import LARGEST_FILE

GOOD = """
title = "Board"
os = "linux"
os_version = 12
memory_gb = 4
app_memory_gb = 0
formats = ["onnx"]
unsure = ["memory_gb"]

[chip]
title = "X"
isa = ["dotprod"]
bandwidth_gb_s = 10

[[chip.cores]]
count = 4
core = "Y"
kind = "big"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "board.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_one(tmp_path: Path) -> None:
    profile = load_device(str(written(tmp_path, GOOD)))
    assert (profile.name, profile.chip.name, profile.isa, profile.memory_gb) == ("board", "board", ("dotprod",), 4.0)
    assert (profile.oldest_os, profile.newest_os, profile.memory_most_gb, profile.engine) == (12, 0, 4.0, "")
    assert profile.is_unsure("memory_gb") and not profile.is_unsure("isa")
    ours = GOOD[: GOOD.index("[chip]")] + '[sources]\nmemory_gb = "read"'
    profile = read_profile(written(tmp_path, 'chip = "m1"\n' + ours.replace("linux", "macos")))
    assert (profile.engine, profile.source("memory_gb"), profile.chip.name) == ("H13", "read", "m1")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('title = "Board"', "", "'title' is missing"),
        ('title = "Board"', 'title = " "', "'title' is empty"),
        ('title = "Board"', r'title = "\u001b[31m"', "'title' has the wrong type"),
        ('title = "Board"', 'title = "Board"\ncolour = "red"', "unknown key 'colour'"),
        ("memory_gb = 4", 'memory_gb = "4 GB"', r"'memory_gb' has the wrong type; got: '4 GB'; wanted: a number of GB"),
        ("memory_gb = 4", "memory_gb = 4\nmemory_mb = 4096", r"unknown key 'memory_mb'.*perhaps memory_gb"),
        ("memory_gb = 4", "memory_gb = 4\nbandwidth = 4", r"unknown key 'bandwidth'.*of the \[chip\] table"),
        ("memory_gb = 4", "memory_gb = -4", "'memory_gb' is negative"),
        ("memory_gb = 4", "memory_gb = 4_000_000", "'memory_gb' is out of range"),
        ("memory_gb = 4", "memory_gb = nan", "'memory_gb' is out of range"),
        ("memory_gb = 4", "memory_gb = inf", "'memory_gb' is out of range"),
        ("memory_gb = 4", f"memory_gb = 1{'0' * 400}", "'memory_gb' is out of range"),
        ("memory_gb = 4", f"memory_gb = 1{'0' * 5000}", "cannot read"),
        ("memory_gb = 4", "memory_gb = 4\nmemory_most_gb = 2", "'memory_most_gb' is less than 'memory_gb'"),
        ("app_memory_gb = 0", "app_memory_gb = 6", "'memory_most_gb' is less than 'app_memory_entitled_gb'"),
        ("os_version = 12", "os_version = true", "'os_version' has the wrong type"),
        ("os_version = 12", "os_version = 12.0", "'os_version' has the wrong type"),
        ("os_version = 12", "os_version = 12\noldest_os = 13", "'os_version' is less than 'oldest_os'"),
        ("os_version = 12", "os_version = 12\nnewest_os = 11", "'newest_os' is less than 'os_version'"),
        ('os = "linux"', 'os = "symbian"', "'os' is not known"),
        ('["onnx"]', '["onnx", "tflite"]', "'formats' is not known"),
        ('["onnx"]', '["onnx", "onnx"]', "'formats' names something twice"),
        ('["onnx"]', "[]", "'formats' is empty"),
        ('["onnx"]', '["coreml"]', "Core ML exists on Apple's systems only"),
        ('["onnx"]', '["onnx"]\nweights = {coreml = "int4"}', "weights of a format that the device does not run"),
        ('unsure = ["memory_gb"]', 'unsure = ["colour"]', "'unsure' is not known"),
        ('unsure = ["memory_gb"]', 'sources = {colour = "seen"}', "'sources' has an unknown key"),
        ('unsure = ["memory_gb"]', 'sources = {memory_gb = ""}', "'sources' has an empty text"),
        ('unsure = ["memory_gb"]', "sources = {memory_gb = 4}", "'sources' has the wrong type"),
        ('["dotprod"]', '["neon"]', "'isa' is not known"),
        ('["dotprod"]', '["sme2"]', "sme2 without sme"),
        ('["dotprod"]', '"dotprod"', "'isa' has the wrong type"),
        ("bandwidth_gb_s = 10", "", r"\[chip\]: 'bandwidth_gb_s' is missing"),
        ("bandwidth_gb_s = 10", "bandwidth_gb_s = 0", "'bandwidth_gb_s' is out of range"),
        ("bandwidth_gb_s = 10", "bandwidth_gb_s = 10\nmeasured_gb_s = 11", "'measured_gb_s' beyond the peak"),
        ("bandwidth_gb_s = 10", "bandwidth_gb_s = 10\nengine_gb_s = 1", "without Neural Engine"),
        ("bandwidth_gb_s = 10", 'bandwidth_gb_s = 10\nengine = "H16"', "in Apple's devices only"),
        ("bandwidth_gb_s = 10", 'bandwidth_gb_s = 10\nengine = "H99"', "'engine' is not known"),
        ("count = 4", "count = 0", "'count' is out of range"),
        ("count = 4", "count = 4\nspeed = 2", "unknown key 'speed'"),
        ('kind = "big"', 'kind = "huge"', "'kind' is not known"),
        ("[[chip.cores]]", "[chip.cores]", "'cores' has the wrong type"),
        (GOOD[GOOD.index("[chip]") :], "", "'chip' is missing"),
        (GOOD[GOOD.index("[chip]") :], "chip = 5", "'chip' has the wrong type|cannot read|unknown key"),
        ("[chip]", "[chip", "cannot read"),
        ("memory_gb = 4", "memory_gb = " + "[" * 3000, "cannot read"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(DeviceError, match=says) as caught:
        read_profile(written(tmp_path, GOOD.replace(old, new, 1)))
    assert caught.value.got is not None and (caught.value.wanted or caught.value.hint)


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    bad = (
        GOOD.replace('"linux"', '"symbian"')
        .replace("= 10", "= -10")
        .replace("count", "number")
        .replace("title", "name")
    )
    profile, problems = examine_profile(written(tmp_path, bad))
    assert profile is None
    found = " ".join(problem.what for problem in problems)
    for what in ("'os'", "'bandwidth_gb_s'", "'count' is missing", "'number'", "'name'", "'title' is missing"):
        assert what in found
    chips = {"chip": "m9"}
    _, problems = parse_profile(chips, "x", "x.toml")
    assert any(problem.what == "unknown chip" for problem in problems)


@pytest.mark.parametrize("kind", ["missing", "folder", "large", "not utf-8", "no name"])
def test_files_that_cannot_be_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b"#" * (LARGEST_FILE + 1))
    elif kind == "not utf-8":
        path.write_bytes(b'title = "\xff"')
    elif kind == "no name":
        path = tmp_path / "a\0b.toml"
    with pytest.raises(DeviceError, match="cannot read"):
        load_device(str(path))


TEXTS = {name: (PROFILES / f"{name}.toml").read_text(encoding="utf-8") for name in device_names()}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(name=st.sampled_from(sorted(TEXTS)), data=st.data())
def test_hostile_values_give_problems_and_nothing_else(name: str, data: Any) -> None:
    table: dict[str, Any] = tomllib.loads(TEXTS[name])
    if data.draw(st.booleans()):
        table["chip"] = {
            "title": "X",
            "isa": [],
            "bandwidth_gb_s": 10,
            "cores": [{"count": 1, "core": "Y", "kind": "big"}],
        }
    into = table["chip"] if isinstance(table["chip"], dict) and data.draw(st.booleans()) else table
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(into)) | st.text(max_size=10))
        into[key] = data.draw(VALUES)
    profile, problems = parse_profile(table, "hostile", "hostile.toml")
    assert (profile is None) == bool(problems)
    for problem in problems:
        assert isinstance(problem, DeviceError) and len(str(problem)) < 20_000
    if profile is not None:
        assert profile.to_json()["name"] == "hostile"


@given(name=st.sampled_from(sorted(TEXTS)), data=st.data())
def test_hostile_text_gives_a_device_error_and_nothing_else(name: str, data: Any, tmp_path_factory: Any) -> None:
    text = TEXTS[name].encode()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    path = tmp_path_factory.getbasetemp() / "hostile.toml"
    path.write_bytes(text[:start] + data.draw(st.binary(max_size=20)) + text[end:])
    profile, problems = examine_profile(path)
    assert (profile is None) == bool(problems)
