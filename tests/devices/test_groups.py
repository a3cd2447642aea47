"""Groups of devices, and what a list of names comes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from satchel.devices.errors import DeviceError
from satchel.devices.groups import expand, groups
from satchel.devices.profile import PROFILES, device_name, device_names, load_device


def named(*names: str) -> list[str]:
    return [profile.name for profile in expand(names)]


def test_groups_hold_what_they_say() -> None:
    assert sorted(named("all")) == device_names()
    assert named("ios") == [f"iphone-{n}{kind}" for n in range(12, 18) for kind in ("", "-pro")]
    assert all(load_device(n).kind == "tablet" for n in named("ipados")) and len(named("ipados")) >= 6
    assert all(load_device(n).os == "macos" for n in named("macos"))
    systems = [n for group in ("ios", "ipados", "macos", "android", "linux") for n in named(group)]
    assert sorted(systems) == device_names()
    assert named("pixel")[-2:] == ["pixel-10", "pixel-10-pro"]  # numbers in their order, not as text
    assert named("galaxy-s24-series") == ["galaxy-s24", "galaxy-s24-exynos"]
    assert named("iphone-15-series") == ["iphone-15", "iphone-15-pro"]
    assert not [group for group in groups() if device_name(group)]  # no group hides a device


def test_the_order_is_kept_and_no_device_comes_twice(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text((PROFILES / "pixel-9.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert named("pixel-9", str(own), "iPhone 12 mini", "iphone-12-series", "pixel-9") == [
        "pixel-9", "own", "iphone-12", "iphone-12-pro",
    ]  # fmt: skip
    assert named("pixel-9", str(PROFILES / "pixel-9.toml")) == ["pixel-9"]
    assert named() == []
    other = tmp_path / "pixel-9.toml"
    other.write_text(own.read_text(encoding="utf-8").replace("memory_gb = 12", "memory_gb = 8"), encoding="utf-8")
    with pytest.raises(DeviceError, match="two different profiles"):
        expand(["pixel-9", str(other)])


@pytest.mark.parametrize(
    ("name", "says"),
    [("iphone-15-por", "iphone-15-pro"), ("andriod", "android"), ("?", "satchel devices"), ("", "linux")],
)
def test_unknown_names_answer_with_the_near_ones(name: str, says: str) -> None:
    with pytest.raises(DeviceError, match=says):
        expand(["pixel-9", name])
