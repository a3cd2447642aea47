"""What an opened bundle gives; what is refused at opening is in tests/hostile/test_bundles.py."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from numpy_bundle import NumpyBackend, write_bundle

from satchel.runtime.bundle import open_bundle
from satchel.runtime.errors import BundleError


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("made") / "toy.satchel")


def test_listed_files_are_read_and_others_are_not_there(path: Path, tmp_path: Path):
    bundle = open_bundle(path)
    assert bundle.text("LICENSE") == "Terms.\n" and bundle.text("parity.json") is None and not bundle.has("../x")
    copy = Path(shutil.copytree(path, tmp_path / "toy.satchel"))
    (copy / "LICENSE").write_bytes(b"\xff" * 7)
    with pytest.raises(BundleError, match="cannot be read as text"):
        open_bundle(copy, verify=False).text("LICENSE")


def test_golden_data_belongs_to_the_model(path: Path):
    bundle = open_bundle(path)
    assert bundle.golden.prompts[0].text == "What is it?" and set(bundle.golden.sets) == {"reference", "weights"}
    backend = NumpyBackend(path, bundle.manifest.entry)
    assert int(backend.prefill(bundle.golden.prompts[0].ids).argmax()) == bundle.golden.prompts[0].continuation[0]
    other = replace(bundle.manifest, tokens=replace(bundle.manifest.tokens, vocab_size=300))
    with pytest.raises(BundleError, match="another vocabulary"):
        _ = replace(bundle, manifest=other).golden


def test_opening_and_validating_load_no_exporter():
    modules = "satchel.runtime.session, satchel.runtime.parity, satchel.runtime.inspect"
    heavy = "{'torch', 'transformers', 'coremltools', 'onnx', 'onnxruntime', 'executorch'}"
    code = f"import sys, {modules}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
