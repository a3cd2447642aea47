"""This machine, where it is a Mac: what sysctl says."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

from satchel.devices.chip import ISA, Cores
from satchel.devices.detect.facts import Facts, kinds, plain
from satchel.devices.errors import DeviceError

FEATURES = {
    "FEAT_DotProd": "dotprod", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16", "FEAT_FP16": "fp16",
    "FEAT_SME": "sme", "FEAT_SME2": "sme2", "FEAT_SME2p1": "sme2p1",
}  # fmt: skip
"""Names under hw.optional.arm, by Apple's "Determining instruction set characteristics", -> ours."""


def run_sysctl() -> str:
    """All that sysctl knows, in lines of "name: value".

    Raises:
        DeviceError: it cannot be run.
    """
    try:
        done = subprocess.run(["sysctl", "-a"], capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("cannot ask sysctl what this Mac is", got=error) from error
    return done.stdout


def macos_facts(text: str) -> Facts:
    """What the output of sysctl says."""
    values = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    arm64 = values.get("hw.optional.arm64") == "1"
    has = {ours for theirs, ours in FEATURES.items() if values.get(f"hw.optional.arm.{theirs}") == "1"}
    brand = plain(values.get("machdep.cpu.brand_string", ""), "unknown CPU")
    return Facts(
        title=f"Mac ({brand})",
        kind="computer",
        os="macos",
        os_version=_whole(values.get("kern.osproductversion", "").split(".")[0]),
        memory_gb=round(_whole(values.get("hw.memsize", "")) / 2**30, 1),
        chip_title=brand,
        reported=(),
        isa=tuple(feature for feature in ISA if feature in has),
        cores=_cores(values, brand),
        arm64=arm64,
        sources={
            "isa": "sysctl hw.optional.arm" if arm64 else "an Intel Mac is not arm64: it has none",
            "cores": "sysctl hw.perflevel",
            "memory_gb": "sysctl hw.memsize, in units of 2^30 bytes",
            "os_version": "sysctl kern.osproductversion",
        },
    )


def _cores(values: Mapping[str, str], brand: str) -> tuple[Cores, ...]:
    """By performance level, 0 being the fastest; without levels all cores are equal."""
    levels = min(_whole(values.get("hw.nperflevels", "")), 8)
    counts = [_whole(values.get(f"hw.perflevel{level}.physicalcpu", "")) for level in range(levels)]
    names = [plain(values.get(f"hw.perflevel{level}.name", ""), f"level {level}") for level in range(levels)]
    found = [(count, f"{brand} {name.lower()}") for count, name in zip(counts, names, strict=True) if count]
    if not found:
        found = [(count, brand) for count in [_whole(values.get("hw.physicalcpu", ""))] if count]
    return tuple(Cores(count, name, kind) for kind, (count, name) in zip(kinds(len(found)), found, strict=False))


def _whole(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0
