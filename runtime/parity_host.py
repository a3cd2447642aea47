"""What this machine is, for a parity file: its name, system, chip, and the library that runs the model."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from satchel.devices.detect.host import host_facts
from satchel.devices.errors import DeviceError
from satchel.runtime.parity_file import HostValue, slug

LIBRARIES = {"onnx": "onnxruntime", "executorch": "executorch", "coreml": "satchel"}


def host_of(format_name: str, emulated: str = "") -> dict[str, HostValue]:
    """The `host` of a parity file.

    Args:
        format_name: of the bundle: "coreml", "onnx" or "executorch".
        emulated: the CPU that is emulated; "" on a real machine.
    """
    common: dict[str, HostValue] = {
        "machine": platform.machine(), "os": _system(), "runtime": _library(format_name), "threads": os.cpu_count(),
    }  # fmt: skip
    if emulated:
        return {"device": f"{slug(emulated)}-emulated", "title": f"{emulated}, emulated", "emulated": True, **common}
    try:
        facts = host_facts()
    except DeviceError:  # a system that we cannot ask; what Python knows of it is enough here
        return {"device": slug(f"{platform.system()}-{platform.machine()}"), **common}
    title = f"{facts.title}, {facts.chip_title}"
    name = facts.title if platform.machine() in facts.title else f"{facts.title} {platform.machine()}"
    memory = round(facts.memory_gb, 1)
    return {"device": slug(name), "title": title, "chip": facts.chip_title, "memory_gb": memory, **common}


def _system() -> str:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _library(format_name: str) -> str:
    package = LIBRARIES[format_name]
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return package
