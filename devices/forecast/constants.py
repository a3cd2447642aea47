"""Figures that a forecast rests on, read from constants.toml: each with its range, its source and its confidence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from satchel.devices.errors import DeviceError
from satchel.devices.strict_toml import Field, read_fields, read_toml

FILE = Path(__file__).parent / "constants.toml"
LARGEST = 1e15


@dataclass(frozen=True)
class Constant:
    """One figure.

    Attributes:
        name: such as "cpu.efficiency".
        value: the likeliest.
        low, high: how far off it may be.
        unit: of the three.
        confidence: "H", "M" or "L".
        source: where it comes from; says so where it was fitted or is general knowledge.
    """

    name: str
    value: float
    low: float
    high: float
    unit: str
    confidence: str
    source: str


FIELDS = {
    "name": Field("text", "the constant's name"),
    "value": Field("number", "a number", most=LARGEST),
    "low": Field("number", "a number, at most the value", most=LARGEST),
    "high": Field("number", "a number, at least the value", most=LARGEST),
    "unit": Field("text", "the unit of the figures"),
    "confidence": Field("text", "H, M or L", allowed=("H", "M", "L")),
    "source": Field("text", "where the figure comes from"),
}


def read_constants(path: Path) -> dict[str, Constant]:
    """The constants of a file, by name.

    Raises:
        DeviceError: the file is missing, is no TOML, or has a key or value that is not known; or a range that does not
            hold its value; or a name twice.
    """
    found: dict[str, Constant] = {}
    for entry in entries(path, "constant"):
        values = checked(entry, FIELDS, path.name)
        constant = Constant(**values)
        if not constant.low <= constant.value <= constant.high:
            wanted = "low, value and high in order"
            raise DeviceError(
                f"{path.name}: {constant.name}", got=[constant.low, constant.value, constant.high], wanted=wanted
            )
        if constant.name in found:
            raise DeviceError(f"{path.name} names a constant twice", got=constant.name, wanted="each once")
        found[constant.name] = constant
    return found


def entries(path: Path, kind: str) -> list[dict[str, Any]]:
    """The [[kind]] tables of a file that holds nothing else.

    Raises:
        DeviceError: it cannot be read, or holds something else.
    """
    table = read_toml(path, "the figures in")
    found = table.get(kind)
    if set(table) != {kind} or not isinstance(found, list) or not all(isinstance(e, dict) for e in found):
        raise DeviceError(f"keys of {path.name}", got=sorted(table), wanted=f"[[{kind}]] tables and nothing else")
    return found


def checked(entry: dict[str, Any], fields: dict[str, Field], where: str) -> dict[str, Any]:
    """The values of one table; DeviceError with the first problem."""
    problems: list[DeviceError] = []
    values = read_fields(entry, fields, where, problems)
    if problems:
        raise problems[0]
    return values


@cache
def _constants() -> dict[str, Constant]:
    return read_constants(FILE)


def constant(name: str) -> Constant:
    """A constant that comes with Satchel.

    Raises:
        DeviceError: constants.toml lacks it.
    """
    found = _constants().get(name)
    if found is None:
        raise DeviceError("a constant of the forecast is missing", got=name, wanted=", ".join(sorted(_constants())))
    return found
