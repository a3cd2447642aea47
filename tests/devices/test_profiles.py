"""The profiles that come with Satchel: each figure has a source, and agrees with what others publish."""

from __future__ import annotations

import dataclasses
import re

import pytest

from satchel.devices.chip import chip_names, known_chip, load_chip
from satchel.devices.errors import DeviceError
from satchel.devices.profile import DeviceProfile, device_name, device_names, known_names, load_device

# CPU features by core, typed from LLVM's AArch64Processors.td (Apple, Cortex), and by system-on-chip from
# hrw/arm-socs-table, data/socs.yml, which has what a kernel reported: asimddp, i8mm, bf16, asimdhp, sve2, sme.
D, DI, DIB = "dotprod fp16", "dotprod i8mm fp16", "dotprod i8mm bf16 fp16"
REPORTED = {
    "a14": D, "m1": D, "m1-max": D,
    "a15": DIB, "m2": DIB, "a16": DIB, "m3": DIB, "m3-max": DIB, "a17-pro": DIB,
    "a18": DIB + " sme sme2", "a18-pro": DIB + " sme sme2", "m4": DIB + " sme sme2", "m4-pro": DIB + " sme sme2",
    "m5": DIB + " sme sme2 sme2p1", "a19": DIB + " sme sme2 sme2p1", "a19-pro": DIB + " sme sme2 sme2p1",
    "tensor-g1": D, "tensor-g2": D, "tensor-g3": DI + " sve2",
    "tensor-g4": DIB + " sve2", "tensor-g5": DIB + " sve2",
    "snapdragon-888": D, "exynos-2100": D,
    "snapdragon-8-gen-1": DIB, "snapdragon-8-gen-2": DIB, "snapdragon-8-gen-3": DIB, "snapdragon-8-elite": DIB,
    "snapdragon-8-elite-gen-5": DIB + " sve2 sme", "exynos-2200": DIB + " sve2", "exynos-2400": DIB + " sve2",
    "bcm2711": "", "bcm2712": D, "orin-nano": D, "cortex-a53-class": "", "cortex-a55-class": D,
}  # fmt: skip

# docs/neural-engine.md: the generations, and what anemll-bench measured in GB/s.
ENGINES = {
    "H13": "a14 m1 m1-max", "H14": "a15 m2", "H15": "a16 m3 m3-max", "H16": "a17-pro m4 m4-pro",
    "H17": "a18 a18-pro m5", "H18": "a19 a19-pro",
}  # fmt: skip
MEASURED = {"m1": 61, "m2": 60, "m3": 63, "m4": 64, "m5": 70, "m3-max": 120, "m4-pro": 126, "m1-max": 55}

# chip, GB of memory, GB of an app without and with the entitlement, system that it was sold with
DEVICES = {
    "iphone-12": ("a14", 4, 2.1, 2.4, 14), "iphone-12-mini": ("a14", 4, 2.1, 2.4, 14),
    "iphone-12-pro-max": ("a14", 6, 3, 4, 14), "iphone-13-mini": ("a15", 4, 2.1, 2.4, 15),
    "iphone-13-pro": ("a15", 6, 3.1, 4.2, 15), "iphone-14-plus": ("a15", 6, 3.1, 4.2, 16),
    "iphone-14-pro-max": ("a16", 6, 3.1, 4.2, 16), "iphone-15-plus": ("a16", 6, 3.1, 4.2, 17),
    "iphone-15-pro-max": ("a17-pro", 8, 3, 6, 17), "iphone-16e": ("a18", 8, 3, 6, 18),
    "iphone-16-plus": ("a18", 8, 3, 6, 18), "iphone-16-pro-max": ("a18-pro", 8, 3, 6, 18),
    "iphone-17": ("a19", 8, 3, 6, 26), "iphone-17-pro": ("a19-pro", 12, 3.3, 6, 26),
    "iphone-air": ("a19-pro", 12, 3.3, 6, 26), "ipad-air-5": ("m1", 8, 5, 6, 15),
    "ipad-pro-m4": ("m4", 8, 5, 6, 17), "macbook-air-m1": ("m1", 8, 2, 2, 11), "macbook-m5": ("m5", 16, 10, 10, 26),
    "pixel-6": ("tensor-g1", 8, 0, 0, 12), "pixel-10-pro": ("tensor-g5", 16, 0, 0, 16),
    "galaxy-s21-ultra": ("snapdragon-888", 8, 0, 0, 11), "galaxy-s22-exynos": ("exynos-2200", 8, 0, 0, 12),
    "galaxy-s25": ("snapdragon-8-elite", 12, 0, 0, 15), "raspberry-pi-4": ("bcm2711", 4, 0, 0, 10),
    "raspberry-pi-5": ("bcm2712", 8, 0, 0, 12), "jetson-orin-nano": ("orin-nano", 8, 0, 0, 20),
}  # fmt: skip


def test_cpu_features_are_those_that_others_publish() -> None:
    assert {name: " ".join(load_chip(name).isa) for name in chip_names()} == REPORTED


def test_engines_and_their_bandwidth() -> None:
    assert {n: load_chip(n).engine for n in chip_names() if load_chip(n).engine} == {
        chip: engine for engine, chips in ENGINES.items() for chip in chips.split()
    }
    assert {n: round(load_chip(n).engine_gb_s) for n in chip_names() if load_chip(n).engine_gb_s} == MEASURED


def test_memory_and_systems_of_some_devices() -> None:
    found = {name: load_device(name) for name in DEVICES}
    assert {
        name: (p.chip.name, p.memory_gb, p.app_memory_gb, p.app_memory_entitled_gb, p.oldest_os)
        for name, p in found.items()
    } == DEVICES


def test_every_phone_that_was_sold_resolves() -> None:
    iphones = [f"iphone-{n}{kind}" for n in (12, 13) for kind in ("", "-mini", "-pro", "-pro-max")]
    iphones += [f"iphone-{n}{kind}" for n in (14, 15, 16) for kind in ("", "-plus", "-pro", "-pro-max")]
    iphones += ["iphone-16e", "iphone-17", "iphone-17-pro", "iphone-17-pro-max", "iphone-air"]
    androids = [f"pixel-{n}{kind}" for n in range(6, 11) for kind in ("", "-pro")]
    androids += [f"galaxy-s{n}{kind}" for n in range(21, 26) for kind in ("", "-plus", "-ultra")]
    macs = [f"macbook-{kind}-m{n}" for n in range(1, 6) for kind in ("air", "pro")]
    for name in iphones + androids + macs + [f"ipad-pro-m{n}" for n in (1, 2, 4, 5)] + ["ipad-air-m1", "ipad-air-m2"]:
        assert device_name(name), name
    assert device_name("iPhone 15 Pro Max") == "iphone-15-pro" != device_name("iPhone 15")


FIGURES = (
    "chip", "cores", "isa", "bandwidth_gb_s", "measured_gb_s", "engine", "engine_gb_s", "tops", "os_version",
    "oldest_os", "newest_os", "memory_gb", "app_memory_gb", "weights",
)  # fmt: skip


@pytest.mark.parametrize("name", device_names())
def test_every_figure_has_its_source(name: str) -> None:
    profile = load_device(name)
    figures = {f: getattr(profile, f, None) or getattr(profile.chip, f, None) for f in FIGURES}
    stated = {f for f, value in figures.items() if value} | {"isa", "app_memory_gb"}
    if profile.memory_most_gb != profile.memory_gb:
        stated.add("memory_most_gb")
    if profile.app_memory_entitled_gb != profile.app_memory_gb:
        stated.add("app_memory_entitled_gb")
    assert [f for f in sorted(stated) if not profile.source(f)] == []
    told = {f for f in (*profile.sources, *profile.chip.sources) if f not in stated}
    assert not told, f"{name} has sources of figures that it has not"
    assert profile.is_unsure("bandwidth_gb_s") == (profile.chip.name != "bcm2711")  # nobody published the others
    assert sum(core.count for core in profile.cores) in range(4, 17)
    assert profile.cores[0].kind in ("big", "little")


def test_names_are_plain_and_mean_one_device() -> None:
    profiles = [load_device(name) for name in device_names()]
    names = [name for p in profiles for name in (p.name, *p.also)]
    assert len(names) == len(set(names)) == len(known_names())
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name) for name in names)
    assert len({p.title for p in profiles}) == len(profiles)
    assert {p.chip.name for p in profiles} == set(chip_names())  # no chip is left over


def test_a_chip_is_known_by_what_systems_call_it() -> None:
    for reported, name in (("SM8650-AC", "snapdragon-8-gen-3"), ("Apple M1 Max", "m1-max"), ("tensor g4", "tensor-g4")):
        assert known_chip("?", reported) == load_chip(name)
    assert known_chip("", "SM6375") is None
    reported = [r.lower() for name in chip_names() for r in load_chip(name).reported_as]
    assert len(reported) == len(set(reported))


def test_facts_of_the_chip_are_handed_on_and_can_be_changed() -> None:
    phone = load_device("pixel-9")
    assert (phone.isa, phone.bandwidth_gb_s, phone.engine, phone.cores) == (
        phone.chip.isa, phone.chip.bandwidth_gb_s, phone.chip.engine, phone.chip.cores,
    )  # fmt: skip
    older = phone.changed(os_version=13, isa=(), engine_gb_s=3.0)
    assert (older.os_version, older.isa, older.chip.engine_gb_s, older.title) == (13, (), 3.0, "Pixel 9")
    assert phone.isa and phone.os_version == 14
    with pytest.raises(TypeError):
        phone.changed(colour="red")
    written = phone.to_json()
    assert written["chip"]["cores"][0] == {"count": 1, "core": "Cortex-X4", "kind": "big"}
    assert written["isa"] == written["chip"]["isa"] == ["dotprod", "i8mm", "bf16", "fp16", "sve2"]
    assert {f.name for f in dataclasses.fields(DeviceProfile)} <= written.keys()


def test_an_unknown_name_answers_with_the_near_ones() -> None:
    with pytest.raises(DeviceError, match="perhaps iphone-15-pro"):
        load_device("iphone-15-por")
    with pytest.raises(DeviceError, match="raspberry-pi-5"):
        load_device("zx-spectrum")
    with pytest.raises(DeviceError, match="a17-pro"):
        load_chip("a17")
