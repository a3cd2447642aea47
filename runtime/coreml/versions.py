"""Which system reads which specification version and opset."""

from __future__ import annotations

SPECIFICATION_IOS = {1: 11, 2: 11, 3: 12, 4: 13, 5: 14, 6: 15, 7: 16, 8: 17, 9: 18, 10: 26}
"""Specification version -> first iOS that reads it. (coremltools 9.0, __init__.py; versions 2 and 3 are 11.2 and 12)"""

OPSET_IOS = {"CoreML3": 13, "CoreML4": 14, "CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}
"""Opset of a function -> first iOS that has it."""

MACOS = {11: "10.13", 12: "10.14", 13: "10.15", 14: "11", 15: "12", 16: "13", 17: "14", 18: "15", 26: "26"}
"""iOS version -> the macOS of the same year."""


def ios_of_macos(version: int) -> int | None:
    """The iOS version of the same year as macOS `version`, from 11 on; None for one that is not known."""
    return next((ios for ios, macos in MACOS.items() if macos == str(version)), version if version >= 26 else None)


def system_name(ios: int) -> str:
    """ "iOS 18, macOS 15" for 18."""
    return f"iOS {ios}, macOS {MACOS[ios]}" if ios in MACOS else f"iOS {ios}"
