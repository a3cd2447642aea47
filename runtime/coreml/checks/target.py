"""For which device or system a package is judged."""

from __future__ import annotations

import re
from dataclasses import dataclass

from satchel.devices.profile import device_name, device_names, load_device
from satchel.devices.rulebook import ENGINES
from satchel.runtime.coreml.versions import MACOS, ios_of_macos
from satchel.runtime.errors import UsageError

SYSTEM = re.compile(r"(ios|ipados|macos)[ -]?(\d+)(?:\.\d+)*", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A device, a system, an engine, or nothing in particular.

    Attributes:
        name: as it was asked for; "" where nothing was.
        system: "ios" or "macos"; "" where it is not known.
        ios: its version, macOS counted as the iOS of the same year; 0 where it is not known.
        engine: generation of its engine, "H13" to "H18"; "" where it is not known.
        has_engine: False where it is known to have none.
    """

    name: str = ""
    system: str = ""
    ios: int = 0
    engine: str = ""
    has_engine: bool = True


def resolve_target(name: str | None) -> Target:
    """A device's name or the path of a profile, a system such as "iOS17" or "macOS15", or an engine such as "H16".

    Raises:
        UsageError: it is none of these, or a device that has no Core ML.
        DeviceError: a profile that cannot be read.
    """
    if not name:
        return Target()
    if name.upper() in ENGINES:
        return Target(name, engine=name.upper())
    if device_name(name) or name.endswith(".toml"):
        return _of_device(name)
    system = SYSTEM.fullmatch(name)
    if system:
        return _of_system(name, system[1].lower(), int(system[2]))
    raise UsageError(
        "unknown target",
        got=name,
        wanted=f"a device ({', '.join(_coreml_devices())}), a system such as iOS17, or {ENGINES[0]} to {ENGINES[-1]}",
        hint="see satchel devices",
    )


def _of_device(name: str) -> Target:
    device = load_device(name)
    if "coreml" not in device.formats:
        wanted = ", ".join(_coreml_devices())
        raise UsageError(
            "a target that runs Core ML", got=f"{device.title} ({', '.join(device.formats)})", wanted=wanted
        )
    version = device.os_version if device.os == "ios" else ios_of_macos(device.os_version) or 0
    return Target(name, device.os, version, device.engine, has_engine=bool(device.engine))


def _of_system(name: str, system: str, version: int) -> Target:
    ios = version if system != "macos" else ios_of_macos(version)
    if ios is None or ios < min(MACOS):
        wanted = f"iOS {min(MACOS)} or later, macOS 11 or later"
        raise UsageError("version of the target", got=name, wanted=wanted)
    return Target(name, "macos" if system == "macos" else "ios", ios)


def _coreml_devices() -> list[str]:
    return [n for n in device_names() if "coreml" in load_device(n).formats]
