"""What an emulated machine says of itself must be what our own reader of such files, and the tables of Linux, say."""

from __future__ import annotations

from pathlib import Path

import pytest
from numpy_bundle import write_bundle

from satchel.devices.detect.cpuinfo import parse_cpuinfo
from satchel.runtime.emulation import install
from satchel.runtime.emulation.machine import CPUS, HWCAP, HWCAP2, describe, features
from satchel.runtime.emulation.run import run_emulated
from satchel.runtime.errors import MissingPackageError, UsageError


def test_bits_are_named_as_linux_names_them():
    assert len(HWCAP.split()) == 32 and len(set(f"{HWCAP} {HWCAP2}".split())) == 32 + len(HWCAP2.split())
    # arch/arm64/include/uapi/asm/hwcap.h: HWCAP_ASIMDDP is bit 20, HWCAP_SVE 22; HWCAP2_I8MM 13, HWCAP2_BF16 14.
    assert features(1 << 20 | 1 << 22, 1 << 13 | 1 << 14) == ["asimddp", "sve", "i8mm", "bf16"]
    assert features(0, 0) == []


@pytest.mark.parametrize(("cpu", "part"), [("cortex-a76", 0xD0B), ("cortex-a72", 0xD08), ("neoverse-n1", 0xD0C)])
def test_cpuinfo_is_read_as_that_cpu(tmp_path: Path, cpu: str, part: int):
    describe(tmp_path, cpu, ["fp", "asimd", "asimddp"], 2)
    text = (tmp_path / "proc" / "cpuinfo").read_text()
    found = parse_cpuinfo(text)
    assert found.arm64 and len(found.cores) == 2 and "dotprod" in found.isa and f"0x{part:x}" in text
    registers = tmp_path / "sys/devices/system/cpu/cpu1/regs/identification/midr_el1"
    assert int(registers.read_text(), 16) == CPUS[cpu]


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch):
    bundle = write_bundle(tmp_path / "toy.satchel")
    with pytest.raises(MissingPackageError, match=r"not installed.*satchel parity emulator"):
        run_emulated(bundle, "max", folder=tmp_path / "none")
    with pytest.raises(UsageError, match=r"not emulated.*cortex-a76"):
        run_emulated(bundle, "pentium")
    with pytest.raises(UsageError, match="no mirror"):
        install.install(tmp_path / "new", mirror="file:///etc deb evil")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match="no apt"):
        install.install(tmp_path / "new")
    assert not (tmp_path / "new").exists() and not install.is_installed(tmp_path / "new")


def test_what_apt_refuses_leaves_nothing_behind(tmp_path: Path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, line in (
        ("apt-get", "echo 'E: not signed' >&2; exit 100"),
        ("dpkg", "echo amd64"),
        ("dpkg-deb", "exit 0"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(install.packages, "KEYRING", str(programs / "dpkg"))
    with pytest.raises(MissingPackageError, match=r"apt-get update failed.*not signed"):
        install.install(tmp_path / "cache" / "emulator")
    assert not list((tmp_path / "cache").iterdir())
