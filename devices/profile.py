"""Device profiles: facts of a device, read from strict TOML (see devices/README.md for the grammar)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from satchel.devices.errors import DeviceError

PROFILES = Path(__file__).parent / "profiles"


@dataclass(frozen=True)
class DeviceProfile:
    """Facts of one device; units are in the names.

    Attributes:
        name: the file's stem, such as "pixel-9".
        title: as people call it.
        chip: of the device, such as "A17 Pro".
        os: "ios", "macos", "android" or "linux".
        os_version: the newest major version that an export may rely on.
        isa: CPU features that matter to kernels: "dotprod", "i8mm", "bf16", "fp16", "sve2", "sme2".
        memory_gb: RAM.
        app_memory_gb: what an app may use before it is ended; 0 where there is no fixed limit.
        bandwidth_gb_s: of the memory.
        engine: Apple's Neural Engine generation, "H13" to "H18", or "" where there is none.
        formats: that the device can run, the preferred first.
        weights: the weight scheme preferred for each format, where it is not "palette".
        sources: field -> where its figure comes from.
    """

    name: str
    title: str
    chip: str
    os: str
    os_version: int
    isa: tuple[str, ...]
    memory_gb: float
    app_memory_gb: float
    bandwidth_gb_s: float
    engine: str
    formats: tuple[str, ...]
    weights: dict[str, str]
    sources: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


KNOWN = {
    "os": ("ios", "macos", "android", "linux"),
    "isa": ("dotprod", "i8mm", "bf16", "fp16", "sve2", "sme2"),
    "formats": ("coreml", "onnx", "executorch"),
    "engine": ("", "H13", "H14", "H15", "H16", "H17", "H18"),
}


def _checked(name: str, value: Any, wanted: Any, where: str) -> Any:
    """One TOML value in the type of its field, or a DeviceError."""
    if wanted is float and type(value) is int:
        value = float(value)
    if wanted == tuple[str, ...] and isinstance(value, list) and all(isinstance(v, str) for v in value):
        value = tuple(value)
    kind = {tuple[str, ...]: tuple, dict[str, str]: dict}.get(wanted, wanted)
    good = type(value) is kind and (kind is not dict or all(isinstance(v, str) for v in value.values()))
    if not good:
        raise DeviceError(
            f"{where}: '{name}' has the wrong type", got=repr(value), wanted=getattr(wanted, "__name__", str(wanted))
        )
    allowed = KNOWN.get(name)
    given = value if isinstance(value, tuple) else (value,)
    if allowed and any(v not in allowed for v in given):
        raise DeviceError(f"{where}: '{name}' is not known", got=repr(value), wanted=", ".join(map(repr, allowed)))
    if kind in (float, int) and value < 0:
        raise DeviceError(f"{where}: '{name}' is negative", got=value, wanted="0 or more")
    return value


def read_profile(path: Path) -> DeviceProfile:
    """Reads a profile.

    Raises:
        DeviceError: the file is missing, is no TOML, lacks a key, or has a key or value that is not known.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(
            f"cannot read the device profile {path.name}", got=error, hint="see devices/README.md"
        ) from error
    hints = {k: v for k, v in get_type_hints(DeviceProfile).items() if k != "name"}
    missing, unknown = sorted(hints.keys() - table.keys()), sorted(table.keys() - hints.keys())
    if missing or unknown:
        raise DeviceError(
            f"the device profile {path.name} has other keys than it should",
            got=f"missing {missing}, unknown {unknown}",
            wanted=sorted(hints),
            hint="see devices/README.md for the grammar",
        )
    values = {k: _checked(k, table[k], hints[k], path.name) for k in hints}
    return DeviceProfile(name=path.stem, **values)


def device_names() -> list[str]:
    """Names of the profiles that come with Satchel, sorted."""
    return sorted(p.stem for p in PROFILES.glob("*.toml"))


def load_device(name: str) -> DeviceProfile:
    """A profile by name, or a user's own by path (anything that ends in .toml).

    Raises:
        DeviceError: there is none of this name; the message lists those that there are.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    if name not in device_names():
        raise DeviceError(
            "unknown device",
            got=name,
            wanted=", ".join(device_names()),
            hint="name one of these, or pass the path of your own profile (devices/README.md)",
        )
    return read_profile(PROFILES / f"{name}.toml")
