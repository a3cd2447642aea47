"""The vectors that the sample apps' tests read are what the runtime says today, and the tiny bundle is whole."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from satchel.runtime.bundle import open_bundle

HERE = Path(__file__).parent
WEB = HERE.parent.parent / "sample_apps" / "web"
VECTORS = WEB.parent / "vectors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(HERE))
    try:
        from vectors import write_all
    finally:
        sys.path.remove(str(HERE))
    folder = tmp_path_factory.mktemp("vectors")
    shutil.copytree(VECTORS / "tokenizers", folder / "tokenizers")
    write_all(folder)
    return folder


def test_the_committed_vectors_are_those_of_the_runtime(made: Path) -> None:
    names = sorted(str(path.relative_to(made)) for path in made.rglob("*.json"))
    assert len(names) >= 17
    for name in names:
        assert (VECTORS / name).read_bytes() == (made / name).read_bytes(), f"{name}: run `npm run vectors`"
    assert (WEB / "src/core/limits.json").read_bytes() == (made / "limits.json").read_bytes()


def test_the_tiny_bundle_is_whole() -> None:
    bundle = open_bundle(next((VECTORS / "bundle").glob("*.satchel")))
    assert bundle.manifest.entry.format == "onnx" and bundle.golden.sets.keys() == {"reference", "weights"}


def test_the_lockfile_names_no_registry() -> None:
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()
