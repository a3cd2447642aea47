"""`satchel devices` and what follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from satchel.cli.app import app
from satchel.devices.detect.linux import linux_facts
from satchel.devices.profile import PROFILES, device_names, read_profile

RUNNER = CliRunner()


def satchel(*arguments: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of `satchel devices ARGUMENTS`."""
    done = RUNNER.invoke(app, ["devices", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


def test_the_list_fits_and_marks_what_is_doubtful() -> None:
    code, text, _ = satchel()
    lines = text.splitlines()
    assert code == 0
    assert max(map(len, lines)) <= 120
    rows = {line.split()[0]: line for line in lines if line.split()}
    assert set(device_names()) <= set(rows)
    assert all(f"{name}:" in rows for name in ("iOS", "iPadOS", "macOS", "Android", "Linux"))
    assert "~51 " in rows["pixel-6"] and " 12.8 " in rows["raspberry-pi-4"]
    assert "2.1-2.4 GB" in rows["iphone-12"] and "~2.1-2.4 GB" in rows["iphone-13"]
    code, text, _ = satchel("--json")
    assert [device["name"] for device in json.loads(text)] == device_names()


@pytest.mark.parametrize("arguments", [["iphone-12-mini"], ["show", "iPhone 12"]])
def test_one_device_with_its_sources(arguments: list[str]) -> None:
    code, text, _ = satchel(*arguments)
    assert code == 0
    assert "also iphone-12-mini" in text and "apple-a14" in text and "~34 GB/s" in text and "argmaxinc" in text
    assert "SME" not in text
    assert json.loads(satchel(*arguments, "--json")[1])["chip"]["engine"] == "H13"


def test_a_device_that_is_not_listed() -> None:
    code, _, says = satchel("iphone-15-por")
    assert code == 2 and "perhaps iphone-15-pro" in " ".join(says.split())
    assert json.loads(satchel("nokia-3310", "--json")[1])["error"] == "DeviceError"
    assert satchel("pixel-9", "pixel-8")[0] == 2  # one at a time, or compare
    code, _, says = satchel("--json", "pixel-9")
    assert code == 2 and "goes to the end" in says


def test_two_side_by_side() -> None:
    code, text, _ = satchel("compare", "pixel-6", "pixel-8")
    rows = {line[:20].strip(): line for line in text.splitlines()}
    assert code == 0
    assert "Tensor G1" in rows["chip"] and "Tensor G3" in rows["chip"] and "i8mm" in rows["CPU features"]
    assert "memory," in text.partition("the same:")[2] and "memory" not in rows
    found = json.loads(satchel("compare", "pixel-6", "pixel-8", "--json")[1])
    assert found["differences"]["chip"] == {"pixel-6": "Tensor G1", "pixel-8": "Tensor G3"}
    assert "the same: chip" in satchel("compare", "pixel-6", "pixel-6")[1]


def test_a_good_profile_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "pixel-9.toml"
    path.write_text((PROFILES / "pixel-9.toml").read_text(encoding="utf-8").replace("memory_gb = 12", "memory_gb = 6"))
    code, text, _ = satchel("validate", path)
    flat = " ".join(text.split())
    assert code == 0
    assert "6 GB" in flat and "name of a profile that comes with Satchel" in flat
    assert "matmul_nbits" in flat and "good profile" in flat
    found = json.loads(satchel("validate", path, "--json")[1])
    assert found["valid"] and found["profile"]["memory_gb"] == 6
    assert {choice["role"] for choice in found["plan"]["choices"]} >= {"weights", "linear"}


def test_a_bad_profile_is_exit_code_2_with_all_that_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        'title = "[red]x"\nos = "symbian"\nmemory_gb = "8 GB"\nchip = "a99"\nmemory = 8\n', encoding="utf-8"
    )
    code, text, says = satchel("validate", path)
    flat = " ".join(says.split())
    assert (code, text) == (2, "")
    for what in (
        "'os' is not known",
        "'memory_gb' has the wrong type",
        "unknown chip",
        "unknown key 'memory'",
        "missing",
    ):
        assert what in flat
    code, text, _ = satchel("validate", path, "--json")
    found = json.loads(text)
    assert code == 2 and not found["valid"] and len(found["problems"]) == 7
    assert satchel("validate", tmp_path / "none.toml")[0] == 2


def test_a_profile_of_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "here.toml"
    code, text, says = satchel("detect", "--output", path, "--no-measure")
    assert (code, text) == (0, "") and "here.toml" in " ".join(says.split())
    assert read_profile(path).source("memory_gb")
    assert satchel("validate", path)[0] == 0
    assert satchel("detect", "--output", path, "--no-measure")[0] == 2  # it is there already
    code, text, _ = satchel("detect", "--no-measure", "--output", path, "--overwrite", "--json")
    assert code == 0 and json.loads(text)["profile"] == path.read_text(encoding="utf-8")
    assert satchel("detect", "--no-measure")[1] == path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["here.toml"]


def test_a_phone_needs_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, says = satchel("detect", "--adb", "-o", tmp_path / "phone.toml")
    assert code == 2 and "platform-tools" in says
    assert satchel("detect", "R5CX")[0] == 2  # a serial is for --adb
    assert not list(tmp_path.iterdir())


def test_devices_of_the_same_chip_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = "\n".join(f"processor : {n}\nFeatures : asimd asimddp asimdhp\nCPU implementer : 0x41\n" for n in range(4))
    texts = {
        "/proc/cpuinfo": cpu,
        "/proc/meminfo": "MemTotal: 4000000 kB",
        "/proc/device-tree/compatible": "brcm,bcm2712",
    }
    facts = linux_facts(lambda path: texts.get(path, ""), "aarch64")
    monkeypatch.setattr("satchel.cli.devices.detect.host_facts", lambda: facts)
    code, text, says = satchel("detect", "--no-measure")
    assert code == 0 and 'chip = "bcm2712"' in text
    assert "devices with this chip are listed: raspberry-pi-5" in says
