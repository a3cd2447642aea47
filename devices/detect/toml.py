"""Writes a profile as TOML. The standard library reads TOML only; profiles need no more of it than this."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from satchel.devices.errors import DeviceError


def to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """A table of texts, numbers, lists of texts, tables and lists of tables, as TOML text that ends in a newline."""
    return "\n".join(_lines(table, prefix)).strip() + "\n"


def _lines(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    inner = {k: v for k, v in table.items() if isinstance(v, dict) or (isinstance(v, list) and v and _is_table(v[0]))}
    yield from (f"{key} = {_value(value)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        for entry in value if isinstance(value, list) else [value]:
            name = f"{prefix}{key}"
            yield from ("", f"[[{name}]]" if isinstance(value, list) else f"[{name}]")
            yield from _lines(entry, f"{name}.")


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _value(value: Any) -> str:
    """A JSON string of printable characters, or a number, is the same in TOML."""
    if isinstance(value, list):
        return f"[{', '.join(_value(v) for v in value)}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else f"{value:.10g}"


def write_profile(text: str, path: Path, *, overwrite: bool = False) -> None:
    """Writes a profile's text aside and renames it to `path`.

    Raises:
        DeviceError: the name does not end in .toml, the file is there already, or it cannot be written.
    """
    if path.suffix != ".toml":
        raise DeviceError("a profile's file ends in .toml", got=path.name, hint=f"--output {path.name}.toml")
    if path.exists() and not overwrite:
        raise DeviceError("the file is there already", got=path, hint="--overwrite, or another name")
    aside = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=".", suffix=".tmp", delete=False
        ) as file:
            aside = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except OSError as error:
        if aside:
            Path(aside).unlink(missing_ok=True)
        raise DeviceError("cannot write the profile", got=error, hint="--output elsewhere") from error
