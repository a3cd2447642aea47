"""Altered packages: an answer or a named error within two seconds and a gigabyte, never a crash.

Some hundreds are tried each time, ten thousand with `pytest -m fuzz`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mil_fuzz
import pytest
from filelock import FileLock

NETWORKS = (
    ("mobilenet", "fp32"), ("vit", "fp16"), ("unet", "fp32"), ("lstm", "fp32"), ("gru", "fp32"),
    ("activations", "fp32"), ("llama with states", "fp16"), ("accumulator", "fp32"), ("audio", "fp32"),
    ("while loop", "fp32"), ("branches", "fp32"), ("detector", "fp32"), ("image filter", "fp32"),
    ("palettized", "fp16"), ("quantized in blocks", "fp32"), ("palettized for iOS 16", "fp32"),
    ("pruned and palettized", "fp32"),
)  # fmt: skip
FEW = 300
MANY, PARTS = 10_000, 4


@pytest.fixture(scope="session")
def packages(
    network_package: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> list[Path]:
    """Networks, and programs of ops whose results grow."""
    from growing_programs import save_all

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "growing"
    with FileLock(f"{folder}.lock"):
        growing = sorted(folder.iterdir()) if folder.exists() else save_all(folder)
    return [network_package(*network) for network in NETWORKS] + sorted(growing)


def fuzz(packages: list[Path], folder: Path, first: int, count: int) -> None:
    """Runs alterations first, first + 1, ... in a process of its own, and looks at what became of them."""
    support = str(Path(mil_fuzz.__file__).parent)
    found = subprocess.run(
        [sys.executable, mil_fuzz.__file__, str(folder), str(first), str(count), *map(str, packages)],
        env=os.environ | {"PYTHONPATH": support, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    report = json.loads(found.stdout)
    assert not report["wrong"], "\n\n".join(report["wrong"])
    refused, ran = (report["counts"][kind] / count for kind in ("refused", "ran"))
    assert refused > 0.3 and ran > 0.1, "hardly anything was altered, or hardly anything got as far as the ops"


def test_some_altered_packages(packages: list[Path], tmp_path: Path) -> None:
    fuzz(packages, tmp_path, MANY, FEW)


@pytest.mark.fuzz
@pytest.mark.parametrize("part", range(PARTS))
def test_many_altered_packages(packages: list[Path], tmp_path: Path, part: int) -> None:
    count = MANY // PARTS
    fuzz(packages, tmp_path, part * count, count)


def test_what_goes_wrong_is_seen(packages: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: a crash, an endless loop, memory and foreign errors are each told apart."""
    acts = {
        "SIGKILL": lambda *_: os.kill(os.getpid(), signal.SIGKILL),
        "more than": lambda *_: [None for _ in iter(int, 1)],
        "wrong": lambda *_: {}["x"],
    }
    package = packages[0]
    model = mil_fuzz.pb.Model.FromString((package / mil_fuzz.MODEL).read_bytes())
    allowed = mil_fuzz.SECONDS
    for name, act in acts.items():
        # Only the act without end gets a short time: after the others a package is still inspected.
        monkeypatch.setattr(mil_fuzz, "SECONDS", 0.05 if name == "more than" else allowed)
        monkeypatch.setattr(mil_fuzz, "use", act)
        found, _ = mil_fuzz.in_a_child(tmp_path / name.split()[0], 1, package, model, mil_fuzz.Sites(model))
        assert found.startswith(name)
