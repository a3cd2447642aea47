"""What a system says of itself, and the profile that this comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from satchel.devices.chip import Chip, Cores, chip_names, known_chip, load_chip
from satchel.devices.errors import DeviceError

KINDS: dict[int, tuple[str, ...]] = {0: (), 1: ("big",), 2: ("big", "little")}
OF_OS = {"macos": ("coreml", "onnx", "executorch"), "linux": ("onnx", "executorch"), "android": ("onnx", "executorch")}
MAC_RESERVE_GB = 6
"""What a Mac keeps from one app, by community figures; docs of profiles macbook-*."""


@dataclass(frozen=True)
class Facts:
    """What was found out.

    Attributes:
        title: the device's name.
        kind: as a profile has it: "phone", "tablet", "computer" or "board".
        os, os_version: as a profile has them; the version is 0 where it could not be read.
        memory_gb: RAM in units of 2^30 bytes, which is how RAM is sold.
        chip_title: the chip as the system calls it.
        reported: further names of the chip, by which ours may be known.
        isa: features that every core has, in the order of chip.ISA.
        cores: the fastest first.
        arm64: False where the CPU is another, so that the ISA is empty for that reason.
        sources: field -> how it was found out.
    """

    title: str
    kind: str
    os: str
    os_version: int
    memory_gb: float
    chip_title: str
    reported: tuple[str, ...]
    isa: tuple[str, ...]
    cores: tuple[Cores, ...]
    arm64: bool
    sources: dict[str, str] = field(default_factory=dict)


def kinds(groups: int) -> tuple[str, ...]:
    """Kinds of that many groups of cores, the fastest first."""
    return KINDS.get(groups, ("big", *["middle"] * (groups - 2), "little"))


def plain(text: str, otherwise: str) -> str:
    """Text from a device as a profile can hold it: one printable line; `otherwise` where nothing is left of it."""
    kept = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return kept[:100].strip() or otherwise


def profile_table(facts: Facts, measured_gb_s: float = 0.0, how: str = "") -> dict[str, Any]:
    """The TOML table of a profile.

    Args:
        facts: of the device.
        measured_gb_s: memory bandwidth that was measured on it; 0 where none was.
        how: how it was measured.

    Raises:
        DeviceError: the system did not say how much memory or which cores there are.
    """
    if facts.memory_gb < 0.1 or not facts.cores:
        raise DeviceError(
            f"{facts.title} does not say how much memory and which cores it has",
            got=f"{facts.memory_gb:g} GB, {sum(c.count for c in facts.cores)} cores",
            hint="write a profile by hand: devices/README.md",
        )
    known = known_chip(facts.chip_title, *facts.reported)
    same = known is not None and set(known.isa) == set(facts.isa)
    reserve = MAC_RESERVE_GB if facts.os == "macos" else 0
    app_memory = max(facts.memory_gb - reserve, facts.memory_gb / 4) if reserve else 0
    chip = known.name if known and same else _chip_table(facts, known, measured_gb_s, how)
    of_profile = {k: v for k, v in facts.sources.items() if k in ("os_version", "memory_gb")}
    return {
        "title": facts.title,
        "kind": facts.kind,
        "os": facts.os,
        "os_version": facts.os_version or 1,
        "memory_gb": facts.memory_gb,
        "app_memory_gb": round(app_memory, 1),
        "formats": list(OF_OS[facts.os]),
        "unsure": [] if facts.os_version else ["os_version"],
        "chip": chip,
        "sources": of_profile
        | {"app_memory_gb": "RAM less about 6 GB, a community figure" if reserve else "no limit but the memory"}
        | ({"chip": f"the system calls it {facts.chip_title}, and reports the same features"} if same else {})
        | ({} if same else {"chip": "as the system reports it"})
        | ({} if facts.os_version else {"os_version": "the system does not say"}),
    }


def _chip_table(facts: Facts, known: Chip | None, measured_gb_s: float, how: str) -> dict[str, Any]:
    """The [chip] table of a chip that is not ours, or that reports other features than ours."""
    peak, source = _peak(facts, known, measured_gb_s, how)
    table: dict[str, Any] = {"title": facts.chip_title, "isa": list(facts.isa), "bandwidth_gb_s": peak}
    sources = {k: v for k, v in facts.sources.items() if k in ("isa", "cores")} | {"bandwidth_gb_s": source}
    unsure = ["bandwidth_gb_s"]
    if 0 < measured_gb_s <= peak:
        table["measured_gb_s"] = measured_gb_s
        sources["measured_gb_s"] = how
    relative = known or _relative(facts.chip_title)
    if relative and relative.engine and facts.os == "macos":
        table |= {"engine": relative.engine}
        sources["engine"] = f"as the {relative.title}'s"
        unsure.append("engine")
    cores = [{"count": c.count, "core": c.core, "kind": c.kind} for c in facts.cores]
    return table | {"unsure": unsure, "cores": cores, "sources": sources}


def _peak(facts: Facts, known: Chip | None, measured_gb_s: float, how: str) -> tuple[float, str]:
    """The memory's bandwidth in GB/s and its source: the known chip's, else the measured one, else an assumption."""
    if known and known.bandwidth_gb_s >= measured_gb_s:
        return known.bandwidth_gb_s, f"as the {known.title}'s"
    if measured_gb_s:
        return measured_gb_s, f"{how}; the published peak is not known, and is higher"
    slowest = slowest_like(facts.isa)
    return slowest.bandwidth_gb_s, f"not known: assumed, as the {slowest.title}'s, the slowest listed with such a CPU"


def slowest_like(isa: Sequence[str]) -> Chip:
    """Of the chips without Neural Engine that have these features, the one with the slowest memory."""
    chips = [chip for chip in map(load_chip, chip_names()) if not chip.engine]
    alike = [chip for chip in chips if set(isa) <= set(chip.isa)]
    return min(alike or chips, key=lambda chip: (chip.bandwidth_gb_s, chip.name))


def _relative(title: str) -> Chip | None:
    """The plain chip of a Pro, Max or Ultra, which has the same generation of engine: "Apple M2 Ultra" -> M2."""
    words = title.split()
    return known_chip(" ".join(words[:2])) if len(words) == 3 else None
