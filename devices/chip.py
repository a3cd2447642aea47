"""Chips: what several devices share. Each is a file of chips/, or the [chip] table of a user's own profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from satchel.devices.errors import DeviceError
from satchel.devices.strict_toml import Field, read_fields, read_toml

CHIPS = Path(__file__).parent / "chips"
ISA = ("dotprod", "i8mm", "bf16", "fp16", "sve2", "sme", "sme2", "sme2p1")
"""CPU features that matter to kernels: Arm's FEAT_DotProd, FEAT_I8MM, FEAT_BF16, FEAT_FP16, FEAT_SVE2, FEAT_SME..."""
IMPLIED = {"sme2": "sme", "sme2p1": "sme2"}
"""Features that cannot be there without another."""
ENGINES = ("", "H13", "H14", "H15", "H16", "H17", "H18")
KINDS = ("big", "middle", "little")


@dataclass(frozen=True)
class Cores:
    """Some equal cores of a chip.

    Attributes:
        count: how many.
        core: such as "Cortex-A55".
        kind: "big", "middle" or "little" within this chip.
    """

    count: int
    core: str
    kind: str


@dataclass(frozen=True)
class Chip:
    """Facts of one chip; units are in the names.

    Attributes:
        name: the file's stem, such as "a17-pro".
        title: as people call it.
        cores: of the CPU, the fastest first.
        isa: features that every core has and the system reports; see ISA.
        bandwidth_gb_s: of the memory, as published: a peak.
        measured_gb_s: what the CPU was measured to read from memory; 0 where unknown.
        engine: Apple's Neural Engine generation, "H13" to "H18", or "" where there is none.
        engine_gb_s: measured bandwidth of weights into the engine; 0 where unknown.
        tops: tera-operations a second of the neural processor, as published; 0 where unknown.
        reported_as: names that systems give it, such as "SM8650", by which `satchel devices detect` knows it.
        unsure: fields whose figure is doubtful.
        sources: field -> where its figure comes from.
    """

    name: str
    title: str
    cores: tuple[Cores, ...]
    isa: tuple[str, ...]
    bandwidth_gb_s: float
    measured_gb_s: float
    engine: str
    engine_gb_s: float
    tops: float
    reported_as: tuple[str, ...]
    unsure: tuple[str, ...]
    sources: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["cores"] = [{"count": c.count, "core": c.core, "kind": c.kind} for c in self.cores]
        return {
            k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, dict) else v for k, v in values.items()
        }


FACTS = ("cores", "isa", "bandwidth_gb_s", "measured_gb_s", "engine", "engine_gb_s", "tops")
"""Fields that a source can be given for."""
FIELDS = {
    "title": Field("text", "the chip's name, such as 'A17 Pro'"),
    "cores": Field("any", "[[cores]] tables with count, core and kind"),
    "isa": Field("names", f"a list of CPU features ({', '.join(ISA)})", allowed=ISA),
    "bandwidth_gb_s": Field("number", "a number of GB/s, such as 51", least=0.1, most=20_000),
    "measured_gb_s": Field("number", "a number of GB/s, 0 where unknown", default=0.0, most=20_000),
    "engine": Field("text", "a Neural Engine generation, or '' for none", default="", allowed=ENGINES),
    "engine_gb_s": Field("number", "a number of GB/s, 0 where unknown", default=0.0, most=20_000),
    "tops": Field("number", "tera-operations a second, 0 where unknown", default=0.0, most=100_000),
    "reported_as": Field("names", "a list of names that systems give the chip", default=()),
    "unsure": Field("names", f"a list of keys ({', '.join(FACTS)})", default=(), allowed=FACTS),
    "sources": Field("texts", "a table: key = source", default={}, allowed=FACTS),
}
CORE_FIELDS = {
    "count": Field("whole", "a whole number of cores", least=1, most=1024),
    "core": Field("text", "the core's name, such as 'Cortex-A55'"),
    "kind": Field("text", "big, middle or little", allowed=KINDS),
}


def parse_chip(table: Mapping[str, Any], name: str, where: str, problems: list[DeviceError]) -> Chip | None:
    """A chip from its TOML table; None where `problems` gained any."""
    before = len(problems)
    values = read_fields(table, FIELDS, where, problems)
    if "cores" in values:
        values["cores"] = _cores(values["cores"], where, problems)
    if len(problems) == before:
        chip = Chip(name=name, **{**values, "sources": dict(values["sources"])})
        problems.extend(_contradictions(chip, where))
        return chip if len(problems) == before else None
    return None


def _cores(entries: Any, where: str, problems: list[DeviceError]) -> tuple[Cores, ...]:
    if not isinstance(entries, list) or not 1 <= len(entries) <= 16 or not all(isinstance(e, dict) for e in entries):
        problems.append(
            DeviceError(f"{where}: 'cores' has the wrong type", got=repr(entries)[:200], wanted=FIELDS["cores"].wanted)
        )
        return ()
    found = []
    for entry in entries:
        before = len(problems)
        values = read_fields(entry, CORE_FIELDS, f"{where}: cores", problems)
        if len(problems) == before:
            found.append(Cores(**values))
    return tuple(found)


def _contradictions(chip: Chip, where: str) -> Iterator[DeviceError]:
    for feature, other in IMPLIED.items():
        if feature in chip.isa and other not in chip.isa:
            yield DeviceError(f"{where}: {feature} without {other}", got=", ".join(chip.isa), wanted=f"{other} as well")
    if chip.engine_gb_s and not chip.engine:
        yield DeviceError(
            f"{where}: 'engine_gb_s' of a chip without Neural Engine", got=chip.engine_gb_s, wanted="0, or an engine"
        )
    if chip.measured_gb_s > chip.bandwidth_gb_s:
        wanted = f"at most bandwidth_gb_s, {chip.bandwidth_gb_s:g}"
        yield DeviceError(f"{where}: 'measured_gb_s' beyond the peak", got=chip.measured_gb_s, wanted=wanted)


def chip_names() -> list[str]:
    """Names of the chips that come with Satchel, sorted."""
    return sorted(p.stem for p in CHIPS.glob("*.toml"))


def known_chip(*reported: str) -> Chip | None:
    """The chip that a system reports by one of these names; capitals, and what follows a hyphen, do not matter."""
    asked = {name.strip().lower() for name in reported} | {name.strip().lower().split("-")[0] for name in reported}
    chips = (load_chip(name) for name in chip_names())
    return next((c for c in chips if asked & {name.lower() for name in c.reported_as}), None)


@cache
def load_chip(name: str) -> Chip:
    """A chip that comes with Satchel, by name.

    Raises:
        DeviceError: there is none of this name, or its file is wrong.
    """
    if name not in chip_names():
        raise DeviceError(
            "unknown chip",
            got=name,
            wanted=", ".join(chip_names()),
            hint="name one of these, or give the facts in a [chip] table (devices/README.md)",
        )
    problems: list[DeviceError] = []
    chip = parse_chip(read_toml(CHIPS / f"{name}.toml", "the chip"), name, f"{name}.toml", problems)
    if chip is None:
        raise problems[0]
    return chip
