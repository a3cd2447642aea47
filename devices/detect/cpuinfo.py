"""Reads what Linux and Android say of a CPU: /proc/cpuinfo, /proc/meminfo and the speeds in /sys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from satchel.devices.chip import ISA, Cores
from satchel.devices.detect.facts import kinds, plain

FEATURES = {
    "asimddp": "dotprod", "i8mm": "i8mm", "bf16": "bf16", "asimdhp": "fp16",
    "sve2": "sve2", "sme": "sme", "sme2": "sme2", "sme2p1": "sme2p1",
}  # fmt: skip
"""The kernel's names -> ours, by Linux's Documentation/arch/arm64/elf_hwcaps.rst."""

ARM, QUALCOMM, APPLE = 0x41, 0x51, 0x61
OF_ARM = {
    0xD03: "Cortex-A53", 0xD04: "Cortex-A35", 0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72",
    0xD09: "Cortex-A73", 0xD0A: "Cortex-A75", 0xD0B: "Cortex-A76", 0xD0D: "Cortex-A77", 0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2",
    0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD80: "Cortex-A520", 0xD81: "Cortex-A720",
    0xD82: "Cortex-X4", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725", 0xD0C: "Neoverse-N1", 0xD40: "Neoverse-V1",
    0xD49: "Neoverse-N2", 0xD4F: "Neoverse-V2",
}  # fmt: skip
PARTS = {(ARM, part): core for part, core in OF_ARM.items()} | {
    (QUALCOMM, 0x001): "Oryon", (QUALCOMM, 0x002): "Oryon v3",
    (APPLE, 0x022): "Icestorm", (APPLE, 0x023): "Firestorm", (APPLE, 0x032): "Blizzard", (APPLE, 0x033): "Avalanche",
}  # fmt: skip
"""(implementer, part) -> core, by Linux's arch/arm64/include/asm/cputype.h and hrw/arm-socs-table."""


@dataclass(frozen=True)
class Cpu:
    """What /proc/cpuinfo says.

    Attributes:
        arm64: whether it is the form that 64-bit ARM kernels write.
        isa: features that every processor reports, in the order of chip.ISA.
        cores: name of each processor's core, by its number.
        model: the "Hardware" or "model name" line; "" where there is none.
    """

    arm64: bool
    isa: tuple[str, ...]
    cores: tuple[str, ...]
    model: str


def parse_cpuinfo(text: str) -> Cpu:
    """Reads /proc/cpuinfo, of ARM or x86; whatever is missing comes out empty."""
    blocks = [_pairs(block) for block in re.split(r"\n\s*\n", text)]
    processors = [block for block in blocks if "processor" in block]
    rest = {k: v for block in blocks for k, v in block.items()}
    arm = [block for block in processors if "cpu implementer" in block or "features" in block]
    if not arm:
        real = {(b.get("physical id", ""), b.get("core id", b["processor"])) for b in processors}  # threads count once
        name = plain(rest.get("model name", ""), "unknown core")
        return Cpu(False, (), (name,) * len(real), plain(rest.get("model name", ""), ""))
    reported = [{FEATURES[w] for w in b.get("features", "").split() if w in FEATURES} for b in arm]
    everywhere = set.intersection(*reported)
    names = tuple(_core(block) for block in arm)
    isa = tuple(feature for feature in ISA if feature in everywhere)
    return Cpu("asimd" in arm[0].get("features", "").split(), isa, names, plain(rest.get("hardware", ""), ""))


def _pairs(block: str) -> dict[str, str]:
    lines = (line.partition(":") for line in block.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, _, value in lines}


def _core(block: Mapping[str, str]) -> str:
    implementer, part = _number(block.get("cpu implementer", "")), _number(block.get("cpu part", ""))
    return PARTS.get((implementer, part), f"core {implementer:#x}:{part:#x}")


def _number(text: str) -> int:
    return int(text, 16) if re.fullmatch(r"0x[0-9a-fA-F]{1,8}", text) else 0


def group_cores(names: Sequence[str], speeds: Mapping[int, int]) -> tuple[Cores, ...]:
    """Equal cores together, the fastest first.

    Args:
        names: of each processor's core, by its number.
        speeds: processor -> its capacity or highest frequency, in any one unit; may lack some.
    """
    found: dict[tuple[int, str], int] = {}
    for number, name in enumerate(names):
        key = (speeds.get(number, 0), name)
        found[key] = found.get(key, 0) + 1
    ordered = sorted(found.items(), key=lambda item: (-item[0][0], item[0][1]))
    if len(ordered) > 8:  # frequencies that differ a little from core to core say nothing
        return (Cores(len(names), plain(names[0], "unknown core"), "big"),)
    named = zip(kinds(len(ordered)), ordered, strict=True)
    return tuple(Cores(count, plain(name, "unknown core"), kind) for kind, ((_, name), count) in named)


def parse_memory(meminfo: str) -> float:
    """RAM of /proc/meminfo in units of 2^30 bytes, to a tenth; 0 where it is not said."""
    found = re.search(r"^MemTotal:\s*(\d{1,15})\s*kB", meminfo, re.MULTILINE)
    return round(int(found[1]) / 2**20, 1) if found else 0.0


def parse_speeds(text: str) -> dict[int, int]:
    """Lines of "/sys/devices/system/cpu/cpu3/cpu_capacity 1024" -> {3: 1024}; others are passed over."""
    pattern = re.compile(r"^\S*/cpu(\d{1,4})/\S+\s+(\d{1,12})\s*$", re.MULTILINE)
    return {int(number): int(speed) for number, speed in pattern.findall(text)}
