"""Device profiles: facts of a device, read from strict TOML (see devices/README.md for the grammar)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from satchel.devices.chip import ENGINES, ISA, Chip, Cores, load_chip, parse_chip
from satchel.devices.chip import FIELDS as CHIP_FIELDS
from satchel.devices.errors import DeviceError
from satchel.devices.strict_toml import Field, read_fields, read_toml

PROFILES = Path(__file__).parent / "profiles"
KNOWN = {
    "kind": ("phone", "tablet", "computer", "board"),
    "os": ("ios", "macos", "android", "linux"),
    "isa": ISA,
    "formats": ("coreml", "onnx", "executorch"),
    "engine": ENGINES,
}
OF_CHIP = ("cores", "isa", "bandwidth_gb_s", "engine")
"""Facts of the chip that a profile hands on under the same name."""


@dataclass(frozen=True)
class DeviceProfile:
    """Facts of one device; units are in the names.

    Attributes:
        name: the file's stem, such as "pixel-9".
        title: as people call it.
        also: further names of devices of which all these facts hold.
        kind: "phone", "tablet", "computer" or "board".
        os: "ios" (iPads too), "macos", "android" or "linux".
        os_version: the newest major version that an export may rely on.
        oldest_os: the version that it was sold with.
        newest_os: the last version that it gets, as far as is known; 0 where that is open.
        memory_gb: RAM that a plan may count on: the usual variant's.
        memory_most_gb: RAM of the largest variant.
        app_memory_gb: what an app may use before it is ended; 0 where there is no fixed limit.
        app_memory_entitled_gb: the same with Apple's increased-memory-limit entitlement; equal where it does nothing.
        formats: that the device can run, the preferred first.
        chip: facts that it shares with other devices.
        weights: the weight scheme preferred for each format, where it is not "palette".
        unsure: fields whose figure is doubtful.
        sources: field -> where its figure comes from.
    """

    name: str
    title: str
    also: tuple[str, ...]
    kind: str
    os: str
    os_version: int
    oldest_os: int
    newest_os: int
    memory_gb: float
    memory_most_gb: float
    app_memory_gb: float
    app_memory_entitled_gb: float
    formats: tuple[str, ...]
    chip: Chip
    weights: dict[str, str]
    unsure: tuple[str, ...]
    sources: dict[str, str]

    @property
    def isa(self) -> tuple[str, ...]:
        """CPU features of the chip."""
        return self.chip.isa

    @property
    def bandwidth_gb_s(self) -> float:
        """Memory bandwidth of the chip, as published."""
        return self.chip.bandwidth_gb_s

    @property
    def engine(self) -> str:
        """Neural Engine generation of the chip; "" where there is none."""
        return self.chip.engine

    @property
    def cores(self) -> tuple[Cores, ...]:
        """CPU cores of the chip, the fastest first."""
        return self.chip.cores

    def is_unsure(self, field: str) -> bool:
        """Whether a figure of the profile, or of its chip, is doubtful."""
        return field in self.unsure or field in self.chip.unsure

    def source(self, field: str) -> str:
        """Where a figure of the profile, or of its chip, comes from; "" where nobody said."""
        return self.sources.get(field, self.chip.sources.get(field, ""))

    def changed(self, **facts: Any) -> DeviceProfile:
        """A copy with other facts, of the profile or of its chip: `profile.changed(os_version=16, isa=())`."""
        own = {f.name for f in fields(self)}
        of_chip = {k: v for k, v in facts.items() if k not in own}
        chip = dataclasses.replace(facts.get("chip", self.chip), **of_chip)
        return dataclasses.replace(self, **{**{k: v for k, v in facts.items() if k in own}, "chip": chip})

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; facts of the chip that plans read most are there twice, under `chip` and on their own."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        chip = self.chip.to_json()
        values |= {"chip": chip} | {k: chip[k] for k in OF_CHIP}
        return {
            k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, dict) else v for k, v in values.items()
        }


FACTS = (
    "chip", "os_version", "oldest_os", "newest_os", "memory_gb", "memory_most_gb", "app_memory_gb",
    "app_memory_entitled_gb", "formats", "weights",
)  # fmt: skip
"""Fields that a source can be given for."""
_GB = "a number of GB, such as 8"
_VERSION = "a major version, such as 18"
FIELDS = {
    "title": Field("text", "the name that people use"),
    "also": Field("names", "a list of further names of the same facts", default=()),
    "kind": Field("text", "the kind of device", default="board", allowed=KNOWN["kind"]),
    "chip": Field("any", "a chip's name, such as 'a17-pro', or a [chip] table"),
    "os": Field("text", "an operating system", allowed=KNOWN["os"]),
    "os_version": Field("whole", _VERSION, least=1, most=999),
    "oldest_os": Field("whole", _VERSION, default=-1, least=1, most=999),
    "newest_os": Field("whole", f"{_VERSION}, or 0 where it is open", default=0, most=999),
    "memory_gb": Field("number", _GB, least=0.1, most=10_000),
    "memory_most_gb": Field("number", _GB, default=-1.0, least=0.1, most=10_000),
    "app_memory_gb": Field("number", f"{_GB}, or 0 for no fixed limit", most=10_000),
    "app_memory_entitled_gb": Field("number", f"{_GB}, or 0 for no fixed limit", default=-1.0, most=10_000),
    "formats": Field("names", "a list of formats, the preferred first", allowed=KNOWN["formats"], least=1),
    "weights": Field("texts", "a table: format = weight scheme", default={}, allowed=KNOWN["formats"]),
    "unsure": Field("names", f"a list of keys ({', '.join(FACTS)})", default=(), allowed=FACTS),
    "sources": Field("texts", "a table: key = source", default={}, allowed=FACTS),
}


def parse_profile(table: dict[str, Any], name: str, where: str) -> tuple[DeviceProfile | None, list[DeviceError]]:
    """A profile from its TOML table, and everything that is wrong; None where anything is."""
    problems: list[DeviceError] = []
    values = read_fields(table, FIELDS, where, problems, CHIP_FIELDS)
    if "chip" in values:
        values["chip"] = _chip(values["chip"], name, where, problems)
    if problems:
        return None, problems
    for key, like in (
        ("oldest_os", "os_version"), ("memory_most_gb", "memory_gb"), ("app_memory_entitled_gb", "app_memory_gb")
    ):  # fmt: skip
        values[key] = values[like] if values[key] == -1 else values[key]
    copies = {key: dict(values[key]) for key in ("weights", "sources")}
    profile = DeviceProfile(name=name, **{**values, **copies})
    problems = list(_contradictions(profile, where))
    return (None if problems else profile), problems


def _chip(value: Any, name: str, where: str, problems: list[DeviceError]) -> Chip | None:
    if isinstance(value, dict):
        return parse_chip(value, name, f"{where}: [chip]", problems)
    if not isinstance(value, str):
        wanted = FIELDS["chip"].wanted
        problems.append(DeviceError(f"{where}: 'chip' has the wrong type", got=repr(value)[:200], wanted=wanted))
        return None
    try:
        return load_chip(value)
    except DeviceError as error:
        problems.append(error)
        return None


def _contradictions(profile: DeviceProfile, where: str) -> Iterator[DeviceError]:
    """What no device can be, though each figure alone could."""
    apple = profile.os in ("ios", "macos")
    for low, high in (
        ("oldest_os", "os_version"), ("os_version", "newest_os"), ("memory_gb", "memory_most_gb"),
        ("app_memory_gb", "app_memory_entitled_gb"), ("app_memory_entitled_gb", "memory_most_gb"),
    ):  # fmt: skip
        least, most = getattr(profile, low), getattr(profile, high)
        if least > most and not (high == "newest_os" and most == 0):
            yield DeviceError(f"{where}: '{high}' is less than '{low}'", got=f"{most:g}", wanted=f"{least:g} or more")
    if "coreml" in profile.formats and not apple:
        yield DeviceError(f"{where}: Core ML exists on Apple's systems only", got=profile.os, wanted="ios or macos")
    if profile.engine and not apple:
        yield DeviceError(f"{where}: a Neural Engine is in Apple's devices only", got=profile.os, wanted="ios or macos")
    for format in profile.weights.keys() - set(profile.formats):
        wanted = ", ".join(profile.formats)
        yield DeviceError(f"{where}: weights of a format that the device does not run", got=format, wanted=wanted)


def examine_profile(path: Path) -> tuple[DeviceProfile | None, list[DeviceError]]:
    """A profile, or None and everything that is wrong with it. Raises nothing for a bad file."""
    try:
        return parse_profile(read_toml(path, "the device profile"), path.stem, path.name)
    except DeviceError as error:
        return None, [error]


def read_profile(path: Path) -> DeviceProfile:
    """Reads a profile.

    Raises:
        DeviceError: the file is missing, is no TOML, lacks a key, or has a key or value that is not known. The first
            problem is raised; `satchel devices validate` shows all.
    """
    profile, problems = examine_profile(path)
    if profile is None:
        raise problems[0]
    return profile


def device_names() -> list[str]:
    """Names of the profiles that come with Satchel, sorted."""
    return sorted(p.stem for p in PROFILES.glob("*.toml"))


@cache
def _shipped(name: str) -> DeviceProfile:
    return read_profile(PROFILES / f"{name}.toml")


@cache
def known_names() -> dict[str, str]:
    """Every name that a device goes by -> the name of its profile: {"iphone-12-mini": "iphone-12", ...}."""
    further = {alias: name for name in device_names() for alias in _shipped(name).also}
    return further | {name: name for name in device_names()}


def device_name(name: str) -> str | None:
    """The name of the profile that a device has, if it comes with Satchel; spaces and capitals do not matter."""
    return known_names().get(name.strip().lower().replace(" ", "-"))


def load_device(name: str) -> DeviceProfile:
    """A profile by any name of the device, or a user's own by path (anything that ends in .toml).

    Raises:
        DeviceError: there is none of this name; the message lists those that there are.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    found = device_name(name)
    if found is None:
        near = get_close_matches(name.lower(), known_names(), n=3)
        own = "or pass the path of your own profile (devices/README.md)"
        raise DeviceError(
            "unknown device",
            got=name,
            wanted=", ".join(device_names()),
            hint=f"perhaps {' or '.join(near)}; {own}" if near else f"name one of these, {own}",
        )
    return _shipped(found)
