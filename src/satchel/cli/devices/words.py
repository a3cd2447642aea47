"""Facts of a device in words: each with its unit, and with ~ where it is doubtful."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from satchel.devices.chip import IMPLIED
from satchel.devices.profile import DeviceProfile


class Fact(NamedTuple):
    """One fact: what it is called, its value in words, and where it comes from."""

    label: str
    value: str
    source: str


SYSTEMS = {"ios": "iOS", "macos": "macOS", "android": "Android", "linux": "Linux"}


def system(profile: DeviceProfile) -> str:
    """The operating system as people write it: iPads have one of their own."""
    return "iPadOS" if profile.os == "ios" and profile.kind == "tablet" else SYSTEMS[profile.os]


def gigabytes(value: float, unit: str = "GB") -> str:
    """Such as "8 GB"; "-" for nothing."""
    return f"{value:g} {unit}" if value else "-"


def more(usual: float, most: float) -> float:
    """The larger figure, 0 where it is the same as the usual one."""
    return most if most > usual else 0


def span(least: float, most: float) -> str:
    """Such as "8" or "8-16"."""
    return f"{least:g}" if least == most else f"{least:g}-{most:g}"


def mark(profile: DeviceProfile, field: str, words: str) -> str:
    """Words with a ~ before them where the figure is doubtful."""
    return f"~{words}" if profile.is_unsure(field) and words != "-" else words


def features(profile: DeviceProfile) -> str:
    """CPU features; those that another one implies are left out."""
    implied = {IMPLIED[feature] for feature in profile.isa if feature in IMPLIED}
    return mark(profile, "isa", " ".join(f for f in profile.isa if f not in implied) or "none")


def cores(profile: DeviceProfile) -> str:
    """Such as "1 Cortex-X4 + 3 Cortex-A720 + 4 Cortex-A520"."""
    return " + ".join(f"{c.count} {c.core}" for c in profile.cores)


def app_memory(profile: DeviceProfile) -> str:
    """Such as "3 GB"; in words where there is no fixed limit."""
    return gigabytes(profile.app_memory_gb) if profile.app_memory_gb else "no fixed limit"


WORDS: tuple[tuple[str, str, Callable[[DeviceProfile], str]], ...] = (
    ("chip", "chip", lambda p: p.chip.title),
    ("cores", "cores", cores),
    ("isa", "CPU features", features),
    ("memory_gb", "memory", lambda p: gigabytes(p.memory_gb)),
    ("memory_most_gb", "largest memory", lambda p: gigabytes(more(p.memory_gb, p.memory_most_gb))),
    ("app_memory_gb", "memory of an app", app_memory),
    (
        "app_memory_entitled_gb",
        "with the entitlement",
        lambda p: gigabytes(more(p.app_memory_gb, p.app_memory_entitled_gb)),
    ),
    ("bandwidth_gb_s", "memory bandwidth", lambda p: gigabytes(p.bandwidth_gb_s, "GB/s")),
    ("measured_gb_s", "as the CPU was measured to read", lambda p: gigabytes(p.chip.measured_gb_s, "GB/s")),
    ("engine", "Neural Engine", lambda p: p.engine or "-"),
    ("engine_gb_s", "its measured bandwidth", lambda p: gigabytes(p.chip.engine_gb_s, "GB/s")),
    ("tops", "tera-operations a second", lambda p: gigabytes(p.chip.tops, "TOPS")),
    ("oldest_os", "sold with", lambda p: f"{system(p)} {p.oldest_os}"),
    ("newest_os", "updated to", lambda p: f"{system(p)} {p.newest_os}" if p.newest_os else "-"),
    ("os_version", "build for", lambda p: f"{system(p)} {p.os_version}"),
    ("formats", "formats", lambda p: " ".join(p.formats)),
    ("weights", "preferred weights", lambda p: ", ".join(f"{k}: {v}" for k, v in p.weights.items()) or "-"),
)
"""(field, label, words) of every fact, in the order shown."""


def facts(profile: DeviceProfile) -> Iterator[Fact]:
    """Every fact of a device and of its chip, in words; ~ marks the doubtful ones, and "-" what is unknown or none."""
    for field, label, words in WORDS:
        value = words(profile)
        shown = value if field == "isa" else mark(profile, field, value)
        yield Fact(label, shown, profile.source(field))
