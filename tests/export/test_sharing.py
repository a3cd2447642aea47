"""Devices whose plans are the same share one bundle, and nothing is computed twice."""

from collections import Counter
from functools import partial

import pytest
from tiny_folder import tiny_folder

import satchel
from satchel.devices.profile import PROFILES
from satchel.export import pipeline
from satchel.export.palettize import compress
from satchel.runtime.bundle import open_bundle

export = partial(satchel.export, effort="low", context=64)


@pytest.fixture
def sister(tmp_path):
    """A phone that differs from iphone-15-pro in its name only."""
    path = tmp_path / "sister.toml"
    lines = (PROFILES / "iphone-15-pro.toml").read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith("also")))
    return str(path)


@pytest.fixture
def calls(monkeypatch):
    found = Counter()

    def count(module, name):
        real = getattr(module, name)

        def counted(*arguments, **options):
            found[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(pipeline, "write_model")
    count(compress, "compress_matrix")
    return found


def test_equal_plans_share_a_bundle(tmp_path, sister, calls):
    folder, out = tiny_folder(tmp_path / "tiny"), tmp_path / "out"
    devices = ["iphone-15-pro", "pixel-9", sister]
    apple, android = export(folder, devices, output=out, weights="palette")
    assert apple.manifest.devices == ("iphone-15-pro", "sister")
    assert android.manifest.devices == ("pixel-9",) and android.manifest.also_for is None
    assert {p.name for p in out.iterdir()} == {"tiny-iphone-15-pro.satchel", "tiny-pixel-9.satchel"}
    assert calls == {"write_model": 2, "compress_matrix": 14}, "a model file a plan; every linear once"
    assert open_bundle(apple.folder).manifest == apple.manifest
    assert "sister" in (apple.folder / "README.md").read_text()
