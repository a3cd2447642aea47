"""Bundles that were altered, damaged or made to harm: each is refused at opening, before anything of it is loaded."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from numpy_bundle import write_bundle

from satchel.runtime import backends
from satchel.runtime.bundle import LARGEST_MANIFEST, open_bundle
from satchel.runtime.errors import BundleError
from satchel.runtime.inspect import inspect_path
from satchel.runtime.parity import validate
from satchel.runtime.session import load


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("made") / "toy-bench.satchel")


@pytest.fixture
def bundle(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Loading this "backend" is what must not happen.
    monkeypatch.setitem(backends.BACKENDS, "onnx", "no.such.module:Executed")
    return Path(shutil.copytree(original, tmp_path / "toy-bench.satchel"))


def edit(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def act(bundle: Path) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        change(manifest)
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return act


def flip(bundle: Path) -> None:
    data = bytearray((bundle / "model.npy").read_bytes())
    data[-1] ^= 1
    (bundle / "model.npy").write_bytes(data)


def link(bundle: Path, name: str, to: Path) -> None:
    path = bundle / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(to)


def outside(bundle: Path, name: str) -> Path:
    """A copy of a bundle's file beside the bundle."""
    copy = shutil.copytree if (bundle / name).is_dir() else shutil.copy
    return Path(copy(bundle / name, bundle.parent / f"outside-{Path(name).name}"))


def list_outside(path: str) -> Callable[[Path], object]:
    def change(manifest: dict) -> None:
        next(f for f in manifest["files"] if f["path"] == "model.npy")["path"] = path
        manifest["entry"]["path"] = path

    return edit(change)


TAMPERINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a changed byte": (flip, "model.npy: its sha256"),
    "a longer file": (lambda b: (b / "model.npy").open("ab").write(b"x"), "model.npy: its size"),
    "a truncated file": (lambda b: os.truncate(b / "model.npy", 3), "its size"),
    "a missing file": (lambda b: (b / "LICENSE").unlink(), "missing.*LICENSE"),
    "a missing folder": (lambda b: shutil.rmtree(b / "golden"), "missing.*golden/"),
    "an extra file": (lambda b: (b / "model.py").write_text("print()"), "does not list.*model.py"),
    "a hidden extra file": (lambda b: (b / "golden" / ".x").write_text(""), "does not list.*golden/.x"),
    "an extra report deeper down": (lambda b: (b / "golden/parity.json").write_text(""), "parity.json"),
    "a link to the same content": (lambda b: link(b, "model.npy", outside(b, "model.npy")), "link or a special"),
    "a link to itself": (lambda b: link(b, "model.npy", Path("model.npy")), "link or a special"),
    "a link within": (lambda b: link(b, "model.npy", Path("LICENSE")), "link or a special"),
    "a linked folder": (lambda b: link(b, "golden", outside(b, "golden")), "link or a special"),
    "an extra link": (lambda b: (b / "etc").symlink_to("/etc"), "link or a special"),
    "a pipe": (lambda b: (b / "model.npy").unlink() or os.mkfifo(b / "model.npy"), "link or a special"),
    "a linked manifest": (lambda b: link(b, "manifest.json", outside(b, "manifest.json")), "not a plain file"),
    "a manifest that is a folder": (lambda b: (b / "manifest.json").unlink() or (b / "manifest.json").mkdir(), "plain"),
    "no manifest": (lambda b: (b / "manifest.json").unlink(), "cannot be read"),
    "an empty manifest": (lambda b: (b / "manifest.json").write_bytes(b""), "not valid JSON"),
    "a manifest that is no UTF-8": (lambda b: (b / "manifest.json").write_bytes(b'{"a": "\xff"}'), "not valid JSON"),
    "a manifest that is no JSON": (lambda b: (b / "manifest.json").write_bytes(b"{'a': 1}"), "not valid JSON"),
    "a bottomless manifest": (lambda b: (b / "manifest.json").write_bytes(b"[" * 1_000_000), "nested too deeply"),
    "an endless manifest": (lambda b: os.truncate(b / "manifest.json", LARGEST_MANIFEST + 1), "too large"),
    "another schema": (edit(lambda m: m.update(schema_version=99)), "unknown schema"),
    "an unknown key": (edit(lambda m: m.update(run="rm -rf /")), "unknown keys"),
    "a huge number": (edit(lambda m: m["files"][0].update(bytes=10**30)), "beyond 2"),
    "a number beyond fp64": (lambda b: (b / "manifest.json").write_bytes(b'{"schema_version": 1e400}'), "too large"),
    "an endless number": (lambda b: (b / "manifest.json").write_bytes(b"1" * 100_000), "not valid JSON"),
    "a path upwards": (list_outside("../outside-model.npy"), "points outside"),
    "a path up and down": (list_outside("golden/../model.npy"), "points outside"),
    "an absolute path": (list_outside("/etc/passwd"), "points outside"),
    "a Windows path": (list_outside("C:\\model.npy"), "points outside"),
    "another entry": (edit(lambda m: m["entry"].update(path="elsewhere.onnx")), "not among the files"),
    "a file listed twice": (edit(lambda m: m["files"].append(m["files"][0])), "listed twice"),
    "the wrong hash": (edit(lambda m: m["files"][0].update(sha256="0" * 64)), "its sha256"),
    "no hash": (edit(lambda m: m["files"][0].update(sha256="")), "impossible"),
}  # fmt: skip


@pytest.mark.parametrize("name", TAMPERINGS)
def test_refused_before_anything_is_executed(bundle: Path, name: str):
    tamper, message = TAMPERINGS[name]
    outside(bundle, "model.npy")
    tamper(bundle)
    for opener in (open_bundle, load, validate, inspect_path):
        with pytest.raises(BundleError, match=None if opener is inspect_path else message):
            opener(bundle)


def test_the_untouched_bundle_opens_and_so_does_one_that_was_validated_or_browsed(bundle: Path):
    (bundle / "parity.json").write_text("{}")
    (bundle / ".DS_Store").write_bytes(b"\0")
    assert open_bundle(bundle).manifest.model.model_id == "maker/toy"


def test_without_verification_sizes_and_names_are_still_checked(bundle: Path):
    flip(bundle)
    assert open_bundle(bundle, verify=False)
    (bundle / "model.npy").write_bytes(b"")
    with pytest.raises(BundleError, match="its size"):
        open_bundle(bundle, verify=False)


@pytest.mark.parametrize("path", ["/nowhere/x.satchel", "", "a\0b", "/etc/hostname"])
def test_what_is_no_bundle_is_said(path: str):
    with pytest.raises(BundleError, match="not a bundle"):
        open_bundle(path)


def test_a_hidden_stand_in_for_a_file_is_found(bundle: Path):
    """A listed path that is now a folder."""
    (bundle / "LICENSE").unlink()
    (bundle / "LICENSE").mkdir()
    with pytest.raises(BundleError, match="missing"):
        open_bundle(bundle)
