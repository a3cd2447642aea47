"""Exports that are killed go on where they were, and end in the bytes of an undisturbed run."""
# ruff: noqa: PT012

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_exports import DEVICES, OPTIONS, hashes
from tiny_folder import tiny_folder
from tiny_llama import tiny_llama

import satchel
from satchel.export.calibration import fisher
from satchel.export.calibration.borders import Borders
from satchel.export.palettize import compress
from satchel.export.palettize.spec import CALIBRATION, Calibration
from satchel.export.work import WorkFolder
from satchel.runtime.errors import OutputError

LINEARS_A_LAYER = 7
WHICH = 3
"""The function, the weights and the recipe say which linear a call was for."""
KILLS = int(os.environ.get("SATCHEL_KILLS", "6"))
"""SATCHEL_KILLS=50 takes some minutes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(CALIBRATION, "normal", Calibration(own=2, shipped=3, length=32))


@pytest.fixture
def calls(monkeypatch):
    """How often each of the costly functions was called."""
    found = Counter()

    def count(module, name):
        real = getattr(module, name)

        def counted(*arguments, **options):
            found[name] += 1
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    for module, name in (
        (compress, "candidates"), (compress, "compress_matrix"), (compress, "int8_pieces"), (fisher, "_backward"),
    ):  # fmt: skip
        count(module, name)
    return found


def killed(folder: Path, out: Path, kills: int, seed: int) -> list[dict]:
    """What killed_exports.py tells."""
    program = Path(__file__).parents[1] / "support" / "killed_exports.py"
    command = [sys.executable, str(program), str(folder), str(out), str(kills), str(seed)]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, env={**os.environ, **threads}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and sends SIGKILL")
def test_kills_at_random_moments_change_no_byte_and_repeat_no_layer(folder, tmp_path):
    told = killed(folder, tmp_path, KILLS, seed=KILLS)
    undisturbed = {line["number"]: line for line in told if line["kind"] == "undisturbed"}
    assert undisturbed[0]["calls"] == 2 * LINEARS_A_LAYER, "each linear of the two layers once for both devices"
    assert undisturbed[0]["hashes"] != undisturbed[1]["hashes"]
    attempts = [line for line in told if line["kind"] == "killed"]
    assert sum(len(line["stages"]) for line in attempts) == KILLS
    for line in attempts:
        calm = undisturbed[line["number"]]
        # Killed when all bundles were written, it refuses to replace them, as any complete export.
        assert line["code"] == 0 or (line["code"] == 3 and line["stages"])
        assert line["hashes"] == calm["hashes"], f"nothing but the same bundles; killed at {line['stages']}"
        # Of a linear whose forms were cut off halfway, only those that lack are asked for: it counts once all the same.
        runs = [{tuple(call[:WHICH]) for call in run} for run in line["runs"]]
        assert len(set().union(*runs)) == calm["calls"]
        for number, run in enumerate(runs[1:], 1):
            assert len(run & set().union(*runs[:number])) <= LINEARS_A_LAYER, "a finished layer was computed again"
        assert max(len(run) for run in line["runs"]) <= calm["calls"]
    (together,) = (line for line in told if line["kind"] == "together")
    assert together["codes"] == [0, 0]
    assert together["left"] == sorted(f"{folder.name}-{device}.satchel" for device in DEVICES)


def test_a_kept_work_folder_computes_nothing_again(folder, tmp_path, calls):
    options = {**OPTIONS, "weights": "palette", "work": tmp_path / "work"}
    first, second = satchel.export(folder, DEVICES, output=tmp_path / "one", **options)
    assert calls == {"candidates": 14, "int8_pieces": 1, "_backward": 2}
    calls.clear()
    satchel.export(folder, DEVICES[::-1], output=tmp_path / "two", **options)
    satchel.export(folder, "raspberry-pi-5", format="onnx", output=tmp_path / "two", **options)
    assert not calls
    for bundle in (first, second):
        assert hashes(bundle.folder) == hashes(tmp_path / "two" / bundle.folder.name)
    with pytest.raises(OutputError, match="exists already"):
        satchel.export(folder, DEVICES, output=tmp_path / "one", **options)
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two", "work"}


def test_damaged_files_are_made_again(folder, tmp_path, calls):
    options = {**OPTIONS, "weights": "int4", "work": tmp_path / "work", "output": tmp_path, "overwrite": True}
    (bundle,) = satchel.export(folder, "pixel-9", **options)
    wanted = hashes(bundle.folder)
    kinds = ("*/selection.json", "weights-*/layers.1.*q_proj*", "forms-*/layers.0.*", "*/*.npy", "**/*.i32", "**/*.*")
    for kind in kinds:
        harmed = [p for p in (tmp_path / "work").glob(kind) if p.is_file() and p.stat().st_size]
        assert harmed, kind
        for path in harmed:
            os.truncate(path, path.stat().st_size // 2 if path.suffix != ".json" else 0)
        calls.clear()
        satchel.export(folder, "pixel-9", **options)
        assert hashes(bundle.folder) == wanted, kind
        assert calls["candidates"] <= (14 if kind == "**/*.*" else 7), kind


def test_borders_that_were_cut_off_count_for_nothing(tmp_path):
    _, config = tiny_llama()
    borders = Borders(tmp_path, config, (2, 8))
    gradient = torch.randn(2, 8, config.hidden_size)
    assert borders.load_gradient() is None and borders.written == 0
    borders.put(0, 0, torch.ones(2, 8, config.hidden_size))
    borders.finish(0)
    borders.save_gradient(1, gradient)
    again = Borders(tmp_path, config, (2, 8))
    assert again.written == 1 and again.get(0, 1, 1).eq(1).all()
    border, found = again.load_gradient()
    assert border == 1 and np.array_equal(found, gradient)
    for name in ("borders.json", "gradient.safetensors"):
        os.truncate(tmp_path / name, 0)
    assert again.written == 0 and again.load_gradient() is None
    again.finish(1)
    os.truncate(tmp_path / "borders.bin", 100)
    assert Borders(tmp_path, config, (2, 8)).written == 0


def test_a_work_folder_goes_at_once_or_not_at_all(tmp_path, monkeypatch):
    """A run that is killed while it removes its folder leaves no half of it, and the next clears what it left."""
    path = tmp_path / "out" / "work"

    def end(*arguments, **options):
        raise SystemExit

    with monkeypatch.context() as patched, pytest.raises(SystemExit), WorkFolder(path) as work:
        (work.step("kind", 1) / "file").touch()
        patched.setattr("satchel.export.work.shutil.rmtree", end)
    work._lock.release()  # as the end of a process does
    assert not path.exists() and list(path.parent.glob("*.removed"))
    WorkFolder(path).clear_remains()
    assert not list(path.parent.glob("*.removed"))
    with pytest.raises(KeyboardInterrupt), WorkFolder(path) as work:
        kept = work.step("kind", 1)
        raise KeyboardInterrupt
    assert kept.exists() and {p.name for p in path.parent.iterdir()} == {"work"}
    with WorkFolder(path) as work:
        assert work.step("kind", 1) == kept != work.step("kind", 2)
    assert not any(path.parent.iterdir())
