"""Rules of what fails or is slow on devices, read from strict TOML (see devices/README.md for the grammar)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from satchel.devices.errors import DeviceError
from satchel.devices.profile import KNOWN

RULES = Path(__file__).parent / "rules"
SEVERITIES = ("error", "warning", "note")
CONFIDENCES = ("H", "M", "L")
ENGINES = tuple(engine for engine in KNOWN["engine"] if engine)
LISTS = {"engines": ENGINES, "isa": KNOWN["isa"], "os": KNOWN["os"]}
IDENTIFIER = re.compile(r"[A-Z]{2}\d\d[a-z]?")
NO_CHECK = "none"
LEAVES = ("op", "value", "function", "program", "run")
UNITS = ("cpu", "gpu")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: two capitals for the file, the number of the fact, and a letter where a fact holds several: "NE12b".
        check: name of the function that judges a program by it, or "none".
        reason: why there is no check; "" where there is one.
        leaves: what does not run on the engine where the rule is broken: the "op", the ops that make or read the
            "value", the "function", the "program", or a "run" of ops between two changes of unit; "" for nothing.
        unit: where it runs instead if an app allows both: "cpu" or "gpu"; "" where nothing leaves.
        severity: "error" fails, crashes or computes something else; "warning" leaves the engine or is far slower;
            "note" is worth knowing.
        confidence: "H", "M" or "L".
        ios: first iOS version that it speaks of; 0 for every one.
        engines: generations that it holds for; empty for every one.
        statement: the rule.
        why: what happens otherwise.
        advice: what to do.
        source: where it comes from.
        isa: CPU features that a chip must have for it to hold; empty for every chip.
        os: systems that it holds for; empty for every one.
        parameters: its thresholds and lists, by name.
    """

    id: str
    check: str
    severity: str
    confidence: str
    ios: int
    engines: tuple[str, ...]
    statement: str
    why: str
    advice: str
    source: str
    reason: str = ""
    leaves: str = ""
    unit: str = ""
    isa: tuple[str, ...] = ()
    os: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)

    def holds(self, *, ios: int, engine: str, isa: Collection[str], os: str) -> bool:
        """Whether it speaks of a device of this iOS level (0 where there is none), engine, CPU and system."""
        return (
            ios >= self.ios
            and (not self.engines or engine in self.engines)
            and set(self.isa) <= set(isa)
            and (not self.os or os in self.os)
        )

    def number(self, name: str) -> int | float:
        """A threshold; DeviceError where the rule has no such number."""
        value = self.parameters.get(name)
        if type(value) not in (int, float):
            raise self._lacks(name, "a number")
        return value  # type: ignore[return-value]

    def text(self, name: str) -> str:
        """A name or word; DeviceError where the rule has none."""
        value = self.parameters.get(name)
        if not isinstance(value, str):
            raise self._lacks(name, "text")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """A list of names; DeviceError where the rule has none."""
        return self._list(name, str)

    def numbers(self, name: str) -> tuple[int, ...]:
        """A list of whole numbers; DeviceError where the rule has none."""
        return self._list(name, int)

    def _list(self, name: str, kind: type) -> tuple[Any, ...]:
        value = self.parameters.get(name)
        if not isinstance(value, tuple) or not all(type(v) is kind for v in value):
            raise self._lacks(name, f"a list of {kind.__name__}")
        return value

    def _lacks(self, name: str, wanted: str) -> DeviceError:
        return DeviceError(f"parameter {name} of rule {self.id}", got=self.parameters.get(name), wanted=wanted)


OPTIONAL = ("reason", "leaves", "unit", "isa", "os", "parameters")


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Reads a file of rules.

    Raises:
        DeviceError: the file is missing, is no TOML, or a rule lacks a key, or has a key or value that is not known.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeviceError(f"cannot read the rules in {path.name}", got=error, hint="see devices/README.md") from error
    entries = table.get("rule")
    if set(table) != {"rule"} or not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
        raise DeviceError(f"keys of {path.name}", got=sorted(table), wanted="[[rule]] tables and nothing else")
    rules = tuple(_rule(entry, path.name) for entry in entries)
    ids = [rule.id for rule in rules]
    if ids != sorted(set(ids)):
        raise DeviceError(f"ids in {path.name}", got=ids, wanted="each once, in order")
    return rules


def _rule(entry: dict[str, Any], where: str) -> Rule:
    where = f"rule {entry.get('id', '?')} of {where}"
    known = [f.name for f in fields(Rule)]
    missing = sorted(set(known) - set(OPTIONAL) - entry.keys())
    unknown = sorted(entry.keys() - set(known))
    if missing or unknown:
        raise DeviceError(
            f"{where} has other keys than it should",
            got=f"missing {missing}, unknown {unknown}",
            wanted=known,
            hint="see devices/README.md for the grammar",
        )
    values = {name: _value(name, value, where) for name, value in entry.items()}
    if (values["check"] == NO_CHECK) != bool(values.get("reason")):
        wanted = "a reason where check is 'none', and only there"
        raise DeviceError(f"{where}: 'reason'", got=repr(values.get("reason", "")), wanted=wanted)
    if ("leaves" in values) != ("unit" in values):
        given = {name: values[name] for name in ("leaves", "unit") if name in values}
        raise DeviceError(f"{where}: 'leaves' and 'unit'", got=given, wanted="both or neither")
    return Rule(**values)


def _value(name: str, value: Any, where: str) -> Any:
    """One TOML value in the type of its field, or a DeviceError."""
    if name == "parameters":
        return _parameters(value, where)
    if name in LISTS:
        return _known(_listed(value, where, name), LISTS[name], where, name)
    if name == "ios":
        if type(value) is not int or value < 0:
            raise DeviceError(f"{where}: '{name}'", got=repr(value), wanted="a major version, or 0 for every one")
        return value
    if not isinstance(value, str) or not value.strip():
        raise DeviceError(f"{where}: '{name}'", got=repr(value), wanted="text")
    if name == "id" and not IDENTIFIER.fullmatch(value):
        raise DeviceError(f"{where}: '{name}'", got=value, wanted="such as NE07 or NE12b")
    allowed = {"severity": SEVERITIES, "confidence": CONFIDENCES, "leaves": LEAVES, "unit": UNITS}.get(name)
    return _known((value,), allowed, where, name)[0] if allowed else value


def _parameters(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DeviceError(f"{where}: 'parameters'", got=repr(value), wanted="a table")
    found: dict[str, Any] = {}
    for name, content in value.items():
        if type(content) not in (int, float, str, list):
            raise DeviceError(f"{where}: parameter '{name}'", got=repr(content), wanted="a number, text or a list")
        found[name] = _listed(content, where, name) if isinstance(content, list) else content
    return found


def _listed(value: Any, where: str, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list) or any(type(v) not in (int, str) for v in value):
        raise DeviceError(f"{where}: '{name}'", got=repr(value), wanted="a list of names or whole numbers")
    return tuple(value)


def _known(values: tuple[Any, ...], allowed: tuple[str, ...], where: str, name: str) -> tuple[Any, ...]:
    if any(v not in allowed for v in values):
        raise DeviceError(f"{where}: '{name}' is not known", got=repr(values), wanted=", ".join(map(repr, allowed)))
    return values


def rule_files() -> list[str]:
    """Names of the files of rules that come with Satchel, sorted."""
    return sorted(p.stem for p in RULES.glob("*.toml"))


def load_rules(name: str) -> tuple[Rule, ...]:
    """The rules of one file, such as "neural-engine", in order.

    Raises:
        DeviceError: there is none of this name; the message lists those that there are.
    """
    if name not in rule_files():
        raise DeviceError("unknown file of rules", got=name, wanted=", ".join(rule_files()))
    return read_rules(RULES / f"{name}.toml")


@cache
def all_rules() -> dict[str, Rule]:
    """Every rule that comes with Satchel, by id."""
    return {rule.id: rule for name in rule_files() for rule in load_rules(name)}


def rule(identifier: str) -> Rule:
    """One rule by its id, such as "NE07".

    Raises:
        DeviceError: there is none of this id.
    """
    if identifier not in all_rules():
        raise DeviceError("unknown rule", got=identifier, wanted=", ".join(all_rules()))
    return all_rules()[identifier]
