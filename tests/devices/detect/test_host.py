"""Profiles of machines that run Linux or macOS, and of this one."""

from __future__ import annotations

import platform
import sys
import tomllib
from pathlib import Path

import pytest

from satchel.devices.chip import Cores
from satchel.devices.detect import host
from satchel.devices.detect.bandwidth import measure_read_gb_s
from satchel.devices.detect.facts import Facts, plain, profile_table, slowest_like
from satchel.devices.detect.linux import linux_facts
from satchel.devices.detect.macos import macos_facts
from satchel.devices.detect.toml import to_toml, write_profile
from satchel.devices.errors import DeviceError
from satchel.devices.profile import DeviceProfile, parse_profile, read_profile

A76 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
CORE = "processor : {}\nFeatures : {}\nCPU implementer : 0x41\nCPU part : {}\n"
PI5 = {
    "/proc/cpuinfo": "\n".join(CORE.format(n, A76, "0xd0b") for n in range(4)),
    "/proc/meminfo": "MemTotal:        8245888 kB\n",
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/proc/device-tree/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0",
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n',
} | {f"/sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq": "2400000\n" for n in range(4)}
M2 = """hw.memsize: 17179869184
hw.physicalcpu: 8
hw.nperflevels: 2
hw.perflevel0.physicalcpu: 4
hw.perflevel0.name: Performance
hw.perflevel1.physicalcpu: 4
hw.perflevel1.name: Efficiency
hw.optional.arm64: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_FP16: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_SME: 0
machdep.cpu.brand_string: Apple M2
kern.osproductversion: 15.3.1
"""
INTEL = """hw.memsize: 17179869184
hw.physicalcpu: 6
machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
kern.osproductversion: 14.5
"""


def profiled(facts: Facts, measured: float = 0.0, how: str = "") -> DeviceProfile:
    """Through the text and the reader, as a user would have it."""
    table = tomllib.loads(to_toml(profile_table(facts, measured, how)))
    profile, problems = parse_profile(table, "found", "found.toml")
    assert profile is not None, problems
    return profile


def test_a_raspberry_pi_is_known_by_its_device_tree() -> None:
    facts = linux_facts(lambda path: PI5.get(path, ""), "aarch64")
    profile = profiled(facts)
    assert (profile.title, profile.kind, profile.os, profile.os_version) == (
        "Raspberry Pi 5 Model B Rev 1.0", "board", "linux", 12,
    )  # fmt: skip
    assert (profile.chip.name, profile.memory_gb) == ("bcm2712", 7.9)
    hidden = PI5 | {"/proc/cpuinfo": PI5["/proc/cpuinfo"].replace("asimddp", "")}
    profile = profiled(linux_facts(lambda path: hidden.get(path, ""), "aarch64"))
    assert (profile.chip.name, profile.isa, profile.bandwidth_gb_s) == ("found", ("fp16",), 17)  # as its kernel says


def test_an_unknown_board() -> None:
    unknown = PI5 | {
        "/proc/device-tree/compatible": "acme,board\0",
        "/proc/device-tree/model": "",
        "/etc/os-release": "",
    }
    facts = linux_facts(lambda path: unknown.get(path, ""), "aarch64")
    profile = profiled(facts)
    assert profile.cores == (Cores(4, "Cortex-A76", "big"),)
    assert profile.bandwidth_gb_s == 12 == slowest_like(("dotprod", "fp16")).bandwidth_gb_s
    assert "assumed" in profile.source("bandwidth_gb_s") and profile.is_unsure("bandwidth_gb_s")
    assert profile.is_unsure("os_version") and "does not say" in profile.source("os_version")
    measured = profiled(facts, 9.5, "measured here")
    assert (measured.bandwidth_gb_s, measured.chip.measured_gb_s) == (9.5, 9.5)
    assert "the published peak is not known" in measured.source("bandwidth_gb_s")
    with pytest.raises(DeviceError, match="how much memory and which cores"):
        profile_table(linux_facts(lambda path: "", "aarch64"))


def test_macs() -> None:
    profile = profiled(macos_facts(M2))
    assert (profile.chip.name, profile.engine, profile.os_version, profile.memory_gb) == ("m2", "H14", 15, 16)
    assert profile.app_memory_gb == 10 and profile.formats[0] == "coreml"
    ultra = profiled(macos_facts(M2.replace("Apple M2", "Apple M2 Ultra")), 300.0, "measured here")
    assert (ultra.chip.title, ultra.engine, ultra.bandwidth_gb_s) == ("Apple M2 Ultra", "H14", 300)
    assert ultra.is_unsure("engine")
    assert [(c.count, c.kind) for c in ultra.cores] == [(4, "big"), (4, "little")]
    intel = macos_facts(INTEL)
    assert not intel.arm64
    assert (profiled(intel).isa, profiled(intel).engine, profiled(intel).cores[0].count) == ((), "", 6)


def test_this_machine(tmp_path: Path) -> None:
    if sys.platform not in ("linux", "darwin"):
        pytest.skip("for Linux and macOS")
    facts = host.host_facts()
    assert facts.arm64 == (platform.machine() in ("aarch64", "arm64"))
    path = tmp_path / "here.toml"
    write_profile(host.profile_text(facts, measure=False), path)
    profile = read_profile(path)
    assert profile.memory_gb > 0.5 and sum(core.count for core in profile.cores) >= 1
    assert all(profile.source(fact) for fact in ("isa", "memory_gb", "bandwidth_gb_s", "cores"))


def test_the_speed_of_memory_is_measured_and_says_how() -> None:
    speed, how = measure_read_gb_s(0.25)
    assert 0.1 < speed < 2000  # GB/s that any machine reaches, and none
    assert "32 MiB" in how or "31 MiB" in how
    assert measure_read_gb_s(0.0) == (0.0, "")


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.sys, "platform", "win32")
    with pytest.raises(DeviceError, match="win32"):
        host.host_facts()


def test_what_a_device_says_is_made_one_printable_line() -> None:
    assert plain("  a\x1b[31m\n b\0", "x") == "a [31m b"
    assert plain("\0\n", "x") == "x"
    assert len(plain("a" * 999, "x")) == 100


def test_the_text_is_toml() -> None:
    table = {"a": 'quote " and \\ and é', "b": [1, 2.5], "c": [], "d": {"e": [{"f": 1}, {"f": 2}], "g": {"h": "i"}}}
    assert tomllib.loads(to_toml(table)) == table


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    write_profile("x = 1\n", path)
    with pytest.raises(DeviceError, match="already"):
        write_profile("x = 2\n", path)
    write_profile("x = 2\n", path, overwrite=True)
    assert path.read_text(encoding="utf-8") == "x = 2\n"
    with pytest.raises(DeviceError, match=r"\.toml"):
        write_profile("x = 1\n", tmp_path / "a.txt")
    with pytest.raises(DeviceError, match="cannot write"):
        write_profile("x = 1\n", tmp_path / "none" / "a.toml")
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    with pytest.raises(DeviceError, match="cannot write"):
        write_profile("x = 1\n", folder, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.toml", "folder.toml"]
