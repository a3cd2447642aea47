from __future__ import annotations

import json
import types
from pathlib import Path

import pytest
from numpy_bundle import write_bundle

from satchel.runtime import inspect as module
from satchel.runtime.errors import BundleError, MissingPackageError
from satchel.runtime.inspect import inspect_path
from satchel.runtime.weights import WeightRecord


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch):
    """A reader that says which file it was given."""
    found = types.ModuleType("a_reader")
    found.read_weights = lambda path: iter([WeightRecord(path.name, (2, 3), 4, 3, "ab")])  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "a_reader", found)
    monkeypatch.setitem(module.READERS, "onnx", "a_reader")


def test_a_bundle_is_described_by_its_manifest(tmp_path: Path):
    path = write_bundle(tmp_path / "toy.satchel")
    got = inspect_path(path)
    assert json.loads(json.dumps(got)) == got
    assert (got["kind"], got["model"], got["weights"], got["context_length"]) == ("bundle", "maker/toy", "palette", 96)
    assert got["choices"][0]["reason"] == "smallest" and got["schemes"]["embed_tokens"] == "int8"
    assert {f["path"] for f in got["files"]} >= {"model.npy", "LICENSE"} and "tensors" not in got
    tensors = inspect_path(path, weights=True)["tensors"]
    assert tensors == [{"name": "model.npy", "shape": [2, 3], "bits": 4, "bytes": 3, "sha256": "ab"}]


def test_single_files_are_described_with_all_their_bytes(tmp_path: Path):
    (tmp_path / "model.onnx").write_bytes(b"123")
    (tmp_path / "model.onnx.data").write_bytes(b"4567")
    got = inspect_path(tmp_path / "model.onnx", weights=True)
    assert got["tensors"][0]["name"] == "model.onnx" and got["bytes"] == 7 and got["format"] == "onnx"
    package = tmp_path / "a.mlpackage" / "Data"
    package.mkdir(parents=True)
    (package / "x").write_bytes(b"12")
    assert inspect_path(package.parent) == {"kind": "model", "path": "a.mlpackage", "format": "coreml", "bytes": 2}


def test_other_things_and_missing_readers_are_said(tmp_path: Path, monkeypatch):
    (tmp_path / "x.txt").write_text("x")
    for path in (tmp_path, tmp_path / "x.txt", tmp_path / "none.onnx"):
        with pytest.raises(BundleError, match="nothing here that can be inspected"):
            inspect_path(path)
    monkeypatch.setitem(module.READERS, "onnx", "no_such_reader")
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(MissingPackageError, match="no_such_reader"):
        inspect_path(tmp_path / "model.onnx", weights=True)
