"""This machine, where it runs Linux."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from pathlib import Path

from satchel.devices.detect.cpuinfo import group_cores, parse_cpuinfo, parse_memory, parse_speeds
from satchel.devices.detect.facts import Facts, plain

Reader = Callable[[str], str]
"""Path -> the file's text, "" where it cannot be read."""
SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")


def read_text(path: str) -> str:
    """A file of /proc or /sys as text, "" where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def linux_facts(read: Reader = read_text, machine: str = "") -> Facts:
    """What the kernel says.

    Args:
        read: gives the text of a file.
        machine: as uname calls the architecture; asked for where it is not given.
    """
    machine = machine or platform.machine()
    cpu = parse_cpuinfo(read("/proc/cpuinfo"))
    board = plain(read("/proc/device-tree/model"), "")
    version, says = _version(read)
    speeds = _speeds(read, len(cpu.cores))
    return Facts(
        title=board or plain(read("/sys/class/dmi/id/product_name"), f"Linux machine ({plain(machine, 'unknown')})"),
        kind="board" if board else "computer",
        os="linux",
        os_version=version,
        memory_gb=parse_memory(read("/proc/meminfo")),
        chip_title=_chip(cpu.model, read, machine),
        reported=_compatible(read("/proc/device-tree/compatible")),
        isa=cpu.isa,
        cores=group_cores(cpu.cores, speeds),
        arm64=cpu.arm64,
        sources={
            "isa": "Features of /proc/cpuinfo, on every core" if cpu.arm64 else f"{machine} is not arm64: it has none",
            "cores": "/proc/cpuinfo" + (" and the speeds in /sys" if speeds else ""),
            "memory_gb": "MemTotal of /proc/meminfo, in units of 2^30 bytes",
            "os_version": says,
        },
    )


def _compatible(text: str) -> tuple[str, ...]:
    """Names in a device tree: "raspberrypi,5-model-b" NUL "brcm,bcm2712" -> ("5-model-b", "bcm2712", ...)."""
    return tuple(name for name in re.split(r"[\0,+\s]", text) if name)[:20]


def _chip(model: str, read: Reader, machine: str) -> str:
    names = _compatible(read("/proc/device-tree/compatible"))
    return model or plain(names[-1] if names else "", f"unknown {plain(machine, 'CPU')}")


def _speeds(read: Reader, count: int) -> dict[int, int]:
    """Of each processor, by the first kind of figure that all of them have."""
    for figure in SPEEDS:
        paths = [f"/sys/devices/system/cpu/cpu{number}/{figure}" for number in range(min(count, 1024))]
        found = parse_speeds("\n".join(f"{path} {read(path).strip()}" for path in paths))
        if len(found) == count:
            return found
    return {}


def _version(read: Reader) -> tuple[int, str]:
    """The distribution's major version and how it is known; 0 where it has none."""
    text = read("/etc/os-release")
    name = re.search(r'^NAME="?([^"\n]{1,60})"?$', text, re.MULTILINE)
    found = re.search(r'^VERSION_ID="?(\d{1,3})(?:\.[\d.]*)?"?$', text, re.MULTILINE)
    distribution = plain(name[1] if name else "", "Linux")
    return (int(found[1]), f"/etc/os-release: {distribution}") if found else (0, distribution)
