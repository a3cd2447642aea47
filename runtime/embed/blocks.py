"""Marked lines at the end of a project's own file, which can be found and taken out again."""

from __future__ import annotations

import re


def with_block(text: str, name: str, lines: tuple[str, ...]) -> str:
    """The text with exactly these lines for a bundle, last; without lines, as if there never had been any.

    A file that does not end in a line break has none with the lines either, which is how it gets its own end back.
    """
    kept = _without(text, re.escape(name))
    if not lines:
        return kept
    block = "\n".join((_begin(name), *lines, _end(name)))
    return f"{kept}{block}\n" if kept.endswith("\n") or not kept else f"{kept}\n{block}"


def without_blocks(text: str) -> str:
    """The text as the project has it, without any of ours."""
    return _without(text, r"\S+")


def _begin(name: str) -> str:
    return f"// satchel embed {name}: begin"


def _end(name: str) -> str:
    return f"// satchel embed {name}: end"


def _without(text: str, name: str) -> str:
    inside = rf"// satchel embed (?P<name>{name}): begin\n.*?^// satchel embed (?P=name): end"
    text = re.sub(rf"(?ms)^{inside}\n", "", text)
    return re.sub(rf"(?ms)\n{inside}\Z", "", text)
