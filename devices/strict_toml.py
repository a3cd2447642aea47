"""Reading TOML strictly: no unknown key, every value of its type and in its range, and all problems found at once.

A problem is a DeviceError that nobody has raised yet: it says what is wrong, what was found and what was wanted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from satchel.devices.errors import DeviceError

GRAMMAR = "see devices/README.md for the grammar"
LARGEST_FILE = 1_000_000
"""Bytes; a profile has some 2,000."""
LONGEST_TEXT = 1000
LONGEST_LIST = 100
REQUIRED = object()


@dataclass(frozen=True)
class Field:
    """What one key may hold.

    Attributes:
        kind: "text", "whole" (number), "number", "names" (a list of texts), "texts" (a table of texts) or "any".
        wanted: the same in words, with the unit.
        default: taken where the key is absent; REQUIRED where it must be there.
        allowed: the texts that are known; empty where any text will do.
        least, most: of a number, or of each key's length of a list.
    """

    kind: str
    wanted: str
    default: Any = REQUIRED
    allowed: tuple[str, ...] = ()
    least: float = 0
    most: float = 1_000_000


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table of a TOML file.

    Raises:
        DeviceError: it is missing, is no file, is larger than a profile can be, or is no TOML.
    """
    try:
        if path.is_file() and path.stat().st_size > LARGEST_FILE:
            raise DeviceError(
                f"cannot read {what} {path.name}", got=f"{path.stat().st_size} bytes", wanted=f"{LARGEST_FILE} at most"
            )
        if path.exists() and not path.is_file():
            raise DeviceError(f"cannot read {what} {path.name}", got="no plain file", wanted="a TOML file")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # tomllib's own error and Unicode's are ValueErrors
        raise DeviceError(f"cannot read {what} {path.name}", got=_words(error), hint=GRAMMAR) from error


def _words(error: Exception) -> str:
    return "tables nested too deeply" if isinstance(error, RecursionError) else str(error)


def read_fields(
    table: Mapping[str, Any],
    fields: Mapping[str, Field],
    where: str,
    problems: list[DeviceError],
    elsewhere: Mapping[str, Field] | None = None,
) -> dict[str, Any]:
    """The good values of a table, defaults filled in; what is wrong is appended to `problems`.

    Args:
        table: as TOML gave it.
        fields: every key that may be there.
        where: the file or table, for messages.
        problems: gains one for each unknown, missing or bad key.
        elsewhere: keys of the [chip] table, which may have been meant.
    """
    for key in sorted(table.keys() - fields.keys()):
        hint = _meant(key, fields, elsewhere or {})
        problems.append(
            DeviceError(f"{where}: unknown key {key!r}", got=repr(key), wanted=", ".join(fields), hint=hint)
        )
    values: dict[str, Any] = {}
    for key, field in fields.items():
        if key in table:
            read = _value(field, table[key], f"{where}: '{key}'", problems)
            if read is not None:
                values[key] = read
        elif field.default is not REQUIRED:
            values[key] = field.default
        else:
            problems.append(
                DeviceError(f"{where}: '{key}' is missing", got="no such key", wanted=field.wanted, hint=GRAMMAR)
            )
    return values


def _meant(key: str, fields: Mapping[str, Field], elsewhere: Mapping[str, Field]) -> str:
    """The key that an unknown one was perhaps meant to be."""
    near = get_close_matches(key, fields, n=1, cutoff=0.6)
    of_chip = get_close_matches(key, elsewhere, n=1, cutoff=0.6)
    if of_chip and (of_chip[0] == key or not near):
        return f"perhaps {of_chip[0]} of the [chip] table: {elsewhere[of_chip[0]].wanted}"
    return f"perhaps {near[0]}: {fields[near[0]].wanted}" if near else GRAMMAR


def _value(field: Field, value: Any, where: str, problems: list[DeviceError]) -> Any:
    """A value in the type of its field, or None with a problem added."""
    if field.kind == "any":
        return value
    found = {"text": _text, "whole": _number, "number": _number, "names": _names, "texts": _texts}[field.kind](
        field, value
    )
    if found is None:
        problems.append(DeviceError(f"{where} has the wrong type", got=_shown(value), wanted=field.wanted))
        return None
    problem = _out_of_range(field, found, where)
    if problem:
        problems.append(problem)
        return None
    return found


def _shown(value: Any) -> str:
    """A TOML value as a message shows it."""
    try:
        return repr(value)
    except (ValueError, RecursionError):  # a whole number of more digits than Python prints
        return f"a value of type {type(value).__name__} that is too long to show"


def _number(field: Field, value: Any) -> float | int | None:
    if field.kind == "whole":
        return value if type(value) is int else None
    if type(value) not in (int, float):
        return None
    return float(value) if abs(value) < 1e300 else float("inf")


def _text(field: Field, value: Any) -> str | None:
    del field
    return value if isinstance(value, str) and value.isprintable() and len(value) <= LONGEST_TEXT else None


def _names(field: Field, value: Any) -> tuple[str, ...] | None:
    if not isinstance(value, list) or len(value) > LONGEST_LIST:
        return None
    texts = tuple(_text(field, v) for v in value)
    return None if any(t is None for t in texts) else texts  # type: ignore[return-value]


def _texts(field: Field, value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict) or len(value) > LONGEST_LIST:
        return None
    return dict(value) if all(_text(field, v) is not None for v in value.values()) else None


def _out_of_range(field: Field, value: Any, where: str) -> DeviceError | None:
    if field.kind in ("whole", "number"):
        if not field.least <= value <= field.most:
            range_ = f"{field.least:g} to {field.most:g}: {field.wanted}"
            kind = "is negative" if value < 0 else "is out of range"
            return DeviceError(f"{where} {kind}", got=_shown(value), wanted=range_)
        return None
    if field.kind == "texts":
        unknown = [k for k in value if field.allowed and k not in field.allowed]
        empty = [k for k, v in value.items() if not v.strip()]
        if unknown or empty:
            what = f"{where} has an unknown key" if unknown else f"{where} has an empty text"
            return DeviceError(
                what, got=", ".join(map(repr, unknown or empty)), wanted=", ".join(field.allowed) or "text"
            )
        return None
    given = value if isinstance(value, tuple) else (value,)
    unknown = [v for v in given if field.allowed and v not in field.allowed]
    if unknown:
        return DeviceError(f"{where} is not known", got=_shown(value), wanted=", ".join(map(repr, field.allowed)))
    if field.kind == "names" and len(set(given)) != len(given):
        return DeviceError(f"{where} names something twice", got=_shown(value), wanted="each name once")
    if field.kind == "names" and len(given) < field.least:
        return DeviceError(f"{where} is empty", got="[]", wanted=field.wanted)
    if field.kind == "text" and not value.strip() and "" not in field.allowed:
        return DeviceError(f"{where} is empty", got="''", wanted=field.wanted)
    return None
