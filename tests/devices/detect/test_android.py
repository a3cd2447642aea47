"""An attached phone, played by a script called adb."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from satchel.devices.detect.android import android_facts, choose, parse_devices, parse_properties
from satchel.devices.detect.facts import profile_table
from satchel.devices.errors import DeviceError
from satchel.devices.profile import parse_profile

ELITE = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 "
    "sm3 sm4 asimddp sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg dcpodp flagm2 frint i8mm bf16 rng bti"
)
"""What hrw/arm-socs-table has of a Galaxy S25+."""
CPUINFO = "\n".join(
    f"processor\t: {n}\nFeatures\t: {ELITE}\nCPU implementer\t: 0x51\nCPU part\t: 0x001\n" for n in range(8)
)
GETPROP = """[ro.build.characteristics]: [phone]
[ro.build.version.release]: [15]
[ro.product.manufacturer]: [samsung]
[ro.product.model]: [SM-S936B]
[ro.soc.manufacturer]: [QTI]
[ro.soc.model]: [SM8750]
"""
SPEEDS = "\n".join(
    f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq {4473600 if n > 5 else 3532800}" for n in range(8)
)
SCRIPT = """#!{python}
import pathlib, sys
here = pathlib.Path({here!r})
name = "devices" if sys.argv[1] == "devices" else sys.argv[4].split()[-1].rpartition("/")[2]
if sys.argv[1] != "devices" and sys.argv[1:4] != ["-s", "R5CX", "shell"]:
    sys.exit("adb: no such device " + sys.argv[2])
sys.stdout.write((here / name).read_text())
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts an adb on PATH that answers with texts; a text that is given replaces the usual one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "adb").write_text(SCRIPT.format(python=sys.executable, here=str(tmp_path)), encoding="utf-8")
    (folder / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))

    def answer(**texts: str) -> None:
        usual = {
            "devices": "List of devices attached\nR5CX\tdevice\n\n", "getprop": GETPROP, "cpuinfo": CPUINFO,
            "meminfo": "MemTotal:       11534336 kB\n", "done": SPEEDS,
        }  # fmt: skip
        for name, text in (usual | texts).items():
            (tmp_path / name).write_text(text, encoding="utf-8")

    return answer


def test_a_phone(phone: Callable[..., None]) -> None:
    phone()
    facts = android_facts()
    profile, problems = parse_profile(profile_table(facts), "found", "found.toml")
    assert profile is not None, problems
    assert (profile.title, profile.kind, profile.os, profile.os_version) == ("samsung SM-S936B", "phone", "android", 15)
    assert (profile.chip.name, profile.memory_gb) == ("snapdragon-8-elite", 11)
    assert [(c.count, c.core) for c in facts.cores] == [(2, "Oryon"), (6, "Oryon")]
    assert android_facts("R5CX") == facts


def test_a_phone_of_an_unknown_chip(phone: Callable[..., None]) -> None:
    phone(
        getprop=GETPROP.replace("SM8750", "MT6989").replace("[phone]", "[tablet,nosdcard]"),
        cpuinfo=CPUINFO.replace("i8mm bf16", "i8mm"), done="cat: Permission denied\n",
    )  # fmt: skip
    profile, problems = parse_profile(profile_table(android_facts()), "found", "found.toml")
    assert profile is not None, problems
    assert (profile.chip.title, profile.isa, profile.kind) == ("MT6989", ("dotprod", "i8mm", "fp16"), "tablet")
    assert profile.bandwidth_gb_s == 51 and "assumed" in profile.source("bandwidth_gb_s")


@pytest.mark.parametrize(
    ("listed", "serial", "says"),
    [
        ("", None, "no phone is attached.*USB debugging"),
        ("R5CX\tunauthorized\n", None, "cannot be asked; got: unauthorized.*allow this computer"),
        ("R5CX\toffline\n", None, "cannot be asked; got: offline"),
        ("R5CX\tno permissions (missing udev rules?); see [http://developer.android.com]\n", None, "no permissions"),
        ("R5CX\tdevice\nemulator-5554\tdevice\n", None, r"several phones.*R5CX \(device\), emulator-5554"),
        ("R5CX\tdevice\n", "R9", r"no such phone is attached; got: R9; wanted: R5CX"),
        ("R9\tdevice\n", None, "adb -s failed; got: adb: no such device R9"),
    ],
)
def test_what_keeps_a_phone_from_answering(
    listed: str, serial: str | None, says: str, phone: Callable[..., None]
) -> None:
    phone(devices="* daemon started successfully\nList of devices attached\n" + listed)
    with pytest.raises(DeviceError, match=says):
        android_facts(serial)


def test_no_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"no adb.*platform-tools"):
        android_facts()


def test_lists_and_properties() -> None:
    text = "* daemon not running; starting now at tcp:5037\nList of devices attached\nA\tdevice usb:1-1\nB\tdevice\n"
    assert choose(parse_devices("List of devices attached\nB\tdevice\n"), "B") == "B"
    assert parse_devices(text) == {"A": "device usb:1-1", "B": "device"}
    assert parse_properties("[a.b]: [c]\nnoise\n[d]: [[e]]\n[f]: []\n") == {"a.b": "c", "d": "[e]", "f": ""}
