"""What this machine is, whichever system it runs."""

from __future__ import annotations

import sys

from satchel.devices.detect.bandwidth import measure_read_gb_s
from satchel.devices.detect.facts import Facts, profile_table
from satchel.devices.detect.linux import linux_facts
from satchel.devices.detect.macos import macos_facts, run_sysctl
from satchel.devices.detect.toml import to_toml
from satchel.devices.errors import DeviceError
from satchel.devices.profile import parse_profile


def host_facts() -> Facts:
    """What this machine says of itself.

    Raises:
        DeviceError: it runs neither Linux nor macOS.
    """
    if sys.platform == "darwin":
        return macos_facts(run_sysctl())
    if sys.platform == "linux":
        return linux_facts()
    raise DeviceError(
        "this system cannot be asked what it is", got=sys.platform, wanted="Linux or macOS",
        hint="write a profile by hand: devices/README.md",
    )  # fmt: skip


def profile_text(facts: Facts, *, measure: bool) -> str:
    """A profile as TOML, which the reader takes.

    Args:
        facts: of the device.
        measure: whether to measure how fast memory is read; only where the facts are this machine's.

    Raises:
        DeviceError: the facts do not make a profile.
    """
    speed, how = measure_read_gb_s(facts.memory_gb) if measure else (0.0, "")
    table = profile_table(facts, speed, how)
    _, problems = parse_profile(table, "detected", "the profile found")
    if problems:
        raise problems[0]
    return to_toml(table)
