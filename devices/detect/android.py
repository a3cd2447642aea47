"""An Android phone that is attached: what it says through adb."""

from __future__ import annotations

import re
import shutil
import subprocess

from satchel.devices.detect.cpuinfo import group_cores, parse_cpuinfo, parse_memory, parse_speeds
from satchel.devices.detect.facts import Facts, plain
from satchel.devices.errors import DeviceError

SPEEDS = "for f in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq; do echo $f $(cat $f 2>/dev/null); done"
TOOLS = "install Android's platform-tools, and see that adb is on PATH"
DEBUGGING = "turn on USB debugging in the phone's developer options, and attach it"


def adb(*arguments: str, timeout: float = 30) -> str:
    """What `adb ARGUMENTS` prints.

    Raises:
        DeviceError: there is no adb, it fails, or it does not answer within `timeout` seconds.
    """
    program = shutil.which("adb")
    if program is None:
        raise DeviceError("no adb to ask an attached phone with", got="none on PATH", hint=TOOLS)
    what, asked = f"adb {arguments[0]}", [program, *arguments]
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, errors="replace", timeout=timeout, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{what} did not answer", got=error, hint=TOOLS) from error
    if done.returncode:
        got = plain(done.stderr or done.stdout, f"exit code {done.returncode}")
        raise DeviceError(f"{what} failed", got=got, hint=DEBUGGING)
    return done.stdout


def parse_devices(text: str) -> dict[str, str]:
    """The output of `adb devices` -> {serial: state}; the states are adb's: "device", "unauthorized", "offline"..."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("*", "List of"))]
    return {fields[0]: " ".join(fields[1:]) for fields in (line.split() for line in lines) if len(fields) > 1}


def choose(attached: dict[str, str], serial: str | None) -> str:
    """The serial of the phone to ask.

    Raises:
        DeviceError: there is none, there are several and none was named, or it may not be asked.
    """
    shown = ", ".join(f"{name} ({state})" for name, state in attached.items()) or "no phone"
    if serial is not None and serial not in attached:
        raise DeviceError("no such phone is attached", got=serial, wanted=shown, hint=DEBUGGING)
    if not attached:
        raise DeviceError("no phone is attached", got="an empty list from adb devices", hint=DEBUGGING)
    if serial is None and len(attached) > 1:
        raise DeviceError("several phones are attached", got=shown, wanted="one", hint="--adb SERIAL")
    chosen = serial or next(iter(attached))
    if attached[chosen] == "device":
        return chosen
    hints = {"unauthorized": "unlock the phone and allow this computer to debug it", "offline": "attach it again"}
    hint = hints.get(attached[chosen], DEBUGGING)
    raise DeviceError(f"the phone {chosen} cannot be asked", got=attached[chosen], wanted="device", hint=hint)


def android_facts(serial: str | None = None) -> Facts:
    """What an attached phone says of itself.

    Raises:
        DeviceError: there is no adb, or not exactly one phone that may be asked.
    """
    chosen = choose(parse_devices(adb("devices")), serial)

    def shell(command: str) -> str:
        return adb("-s", chosen, "shell", command)

    return parse_phone(shell("getprop"), shell("cat /proc/cpuinfo"), shell("cat /proc/meminfo"), shell(SPEEDS))


def parse_properties(text: str) -> dict[str, str]:
    """The output of getprop: lines of "[ro.product.model]: [Pixel 9]"."""
    return dict(re.findall(r"^\[([^\]\n]+)\]: \[(.*)\]\s*$", text, re.MULTILINE))


def parse_phone(getprop: str, cpuinfo: str, meminfo: str, speeds: str) -> Facts:
    """What the outputs of a phone's shell say."""
    properties = parse_properties(getprop)
    cpu = parse_cpuinfo(cpuinfo)
    chip = plain(properties.get("ro.soc.model", "") or properties.get("ro.board.platform", ""), "unknown chip")
    maker, model = (plain(properties.get(f"ro.product.{key}", ""), "") for key in ("manufacturer", "model"))
    titled = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    version = re.match(r"\d{1,3}", properties.get("ro.build.version.release", ""))
    fast = parse_speeds(speeds)
    return Facts(
        title=plain(titled, "Android phone"),
        kind="tablet" if "tablet" in properties.get("ro.build.characteristics", "") else "phone",
        os="android",
        os_version=int(version[0]) if version else 0,
        memory_gb=parse_memory(meminfo),
        chip_title=chip,
        reported=(properties.get("ro.soc.model", ""),),
        isa=cpu.isa,
        cores=group_cores(cpu.cores, fast),
        arm64=cpu.arm64,
        sources={
            "isa": "Features of the phone's /proc/cpuinfo, on every core" if cpu.arm64 else "the phone is not arm64",
            "cores": "the phone's /proc/cpuinfo" + (" and the speeds in /sys" if fast else ""),
            "memory_gb": "MemTotal of the phone's /proc/meminfo, in units of 2^30 bytes",
            "os_version": "ro.build.version.release",
        },
    )
