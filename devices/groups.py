"""Names that stand for several devices, such as "ios", and what a list of names comes to.

The groups follow from the profiles, so a new profile joins its groups by itself: "all"; one for each system ("ios"
holds the iPhones, "ipados" the iPads, then "macos", "android" and "linux"); "pixel" and "galaxy"; and the generations
of phones, which end in "-series", since "iphone-15" alone is a device: "iphone-15-series" is it and the Pro.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache

from satchel.devices.errors import DeviceError
from satchel.devices.profile import DeviceProfile, device_name, device_names, known_names, load_device

FAMILY = re.compile(r"pixel|galaxy")
GENERATION = re.compile(r"(iphone|pixel|galaxy)-s?\d+(?=-|$)")
SERIES = "-series"


def _system(profile: DeviceProfile) -> str:
    return "ipados" if profile.os == "ios" and profile.kind == "tablet" else profile.os


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """Every group: its name -> the names of its profiles, in their order."""
    found: dict[str, list[str]] = {"all": []}
    for name in sorted(device_names(), key=_in_order):
        joined = ["all", _system(load_device(name))]
        family, generation = FAMILY.match(name), GENERATION.match(name)
        joined += [family[0]] if family else []
        joined += [generation[0] + SERIES] if generation else []
        for group in joined:
            found.setdefault(group, []).append(name)
    return {group: tuple(names) for group, names in found.items()}


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sorts numbers as numbers: pixel-9 before pixel-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def expand(names: Sequence[str]) -> list[DeviceProfile]:
    """The devices that some names stand for, in the order given, none of them twice.

    Args:
        names: devices by any of their names, groups, and paths of own profiles (anything that ends in .toml).

    Raises:
        DeviceError: a name that is neither; a profile that cannot be read; two different profiles of one name.
    """
    found: dict[str, DeviceProfile] = {}
    for name in names:
        for profile in _named(name):
            if found.setdefault(profile.name, profile) != profile:
                raise DeviceError(
                    "two different profiles have one name", got=profile.name, hint="rename one of the files"
                )
    return list(found.values())


def _named(name: str) -> list[DeviceProfile]:
    if name.endswith(".toml") or device_name(name):
        return [load_device(name)]
    members = groups().get(name.strip().lower().replace(" ", "-"))
    if members:
        return [load_device(member) for member in members]
    near = get_close_matches(name.lower(), [*known_names(), *groups()], n=3, cutoff=0.5)
    own = "pass the path of your own profile (devices/README.md)"
    short = ", ".join(group for group in groups() if not group.endswith(SERIES))
    raise DeviceError(
        "unknown device",
        got=name,
        wanted=f"a device ({', '.join(device_names())}) or a group ({short})",
        hint=f"perhaps {' or '.join(near)}; or {own}" if near else f"see `satchel devices`, or {own}",
    )
