"""Reads an Xcode project: the old property list that project.pbxproj is, and what its objects refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_TOKEN = re.compile(
    r'\s+|/\*.*?\*/|//[^\n]*|(?P<text>"(?:[^"\\]|\\.)*")|(?P<word>[\w./$:-]+)|(?P<sign>[{}()=;,])', re.S
)


def parse(text: str) -> Any:
    """A property list in NeXTSTEP's notation -> dictionaries, lists and strings. ValueError where it is none."""
    tokens = list(_tokens(text))
    value, end = _value(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"something follows the list: {tokens[end]}")
    return value


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"unexpected {text[place : place + 20]!r}")
        if match.lastgroup is not None:
            yield match.lastgroup, match[0]
        place = match.end()


def _value(tokens: list[tuple[str, str]], i: int) -> tuple[Any, int]:
    kind, text = tokens[i]
    if kind == "word":
        return text, i + 1
    if kind == "text":
        return re.sub(r"\\(.)", r"\1", text[1:-1]), i + 1
    if text == "(":
        return _list(tokens, i + 1)
    if text == "{":
        return _dictionary(tokens, i + 1)
    raise ValueError(f"unexpected {text}")


def _list(tokens: list[tuple[str, str]], i: int) -> tuple[list[Any], int]:
    found = []
    while tokens[i][1] != ")":
        value, i = _value(tokens, i)
        found.append(value)
        i = _expect(tokens, i, ",") if tokens[i][1] != ")" else i
    return found, i + 1


def _dictionary(tokens: list[tuple[str, str]], i: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while tokens[i][1] != "}":
        key, i = _value(tokens, i)
        value, i = _value(tokens, _expect(tokens, i, "="))
        i = _expect(tokens, i, ";")
        if key in found:
            raise ValueError(f"{key} occurs twice")
        found[key] = value
    return found, i + 1


def _expect(tokens: list[tuple[str, str]], i: int, sign: str) -> int:
    if tokens[i] != ("sign", sign):
        raise ValueError(f"got {tokens[i][1]}, wanted {sign}")
    return i + 1


class Project:
    """An Xcode project.

    Args:
        path: of the .xcodeproj.
    """

    def __init__(self, path: Path) -> None:
        value = parse((path / "project.pbxproj").read_text(encoding="utf-8"))
        self.folder = path.parent
        self.objects: dict[str, dict[str, Any]] = value["objects"]
        self.root = self.objects[value["rootObject"]]

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """Objects of a kind by id."""
        return {key: value for key, value in self.objects.items() if value["isa"] == kind}

    def target(self, name: str) -> dict[str, Any]:
        """A target by name."""
        return next(t for t in self.of_kind("PBXNativeTarget").values() if t["name"] == name)

    def files(self) -> dict[str, Path]:
        """Ids of file references -> where they are, those that a build makes left out."""
        return dict(self._below(self.root["mainGroup"], self.folder))

    def _below(self, key: str, folder: Path) -> Iterator[tuple[str, Path]]:
        item = self.objects[key]
        if item["sourceTree"] != "<group>":
            return
        place = folder / item.get("path", "")
        if item["isa"] == "PBXFileReference":
            yield key, place
        for child in item.get("children", ()):
            yield from self._below(child, place)

    def built(self, target: dict[str, Any], phase: str) -> list[str]:
        """Ids of the files, or of package products, that a phase of a target takes, such as "PBXSourcesBuildPhase"."""
        phases = [self.objects[key] for key in target["buildPhases"]]
        builds = [self.objects[key] for p in phases if p["isa"] == phase for key in p["files"]]
        return [str(build.get("fileRef") or build["productRef"]) for build in builds]

    def settings(self, holder: dict[str, Any]) -> list[dict[str, Any]]:
        """Build settings of a target or of the project, one for each configuration."""
        configurations = self.objects[holder["buildConfigurationList"]]["buildConfigurations"]
        return [self.objects[key]["buildSettings"] for key in configurations]

    def dangling(self) -> list[str]:
        """Ids that objects refer to and that there are not."""
        known = set(self.objects)
        return sorted({i for o in self.objects.values() for i in _ids(o)} - known)


def _ids(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if re.fullmatch(r"[0-9A-F]{24}", value):
            yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _ids(item)
