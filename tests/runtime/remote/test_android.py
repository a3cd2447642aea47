"""A phone, played by a stand-in adb (support/stand_in_adb.py) whose phone is a folder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from numpy_bundle import write_bundle

from satchel.devices.errors import DeviceError
from satchel.runtime.bundle import open_bundle
from satchel.runtime.errors import BundleError, UsageError
from satchel.runtime.remote.android import run_over_adb

BOTH = ["ai.satchel.sample", "ai.satchel.sample.test"]
FILES = "sdcard/Android/data/ai.satchel.sample/files"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("made") / "toy-pixel-9.satchel")


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Attaches a phone of the given state; returns its folder."""
    program, folder = tmp_path / "bin" / "adb", tmp_path / "phone"
    program.parent.mkdir()
    folder.mkdir()
    source = (Path(__file__).parents[2] / "support" / "stand_in_adb.py").read_text(encoding="utf-8")
    program.write_text(source.replace("/usr/bin/env python3", sys.executable, 1), encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv("SATCHEL_PHONE", str(folder))
    report = tmp_path / "report.json"
    report.write_text('{"from": "the phone"}', encoding="utf-8")

    def attach(**state: object) -> Path:
        usual = {"devices": ["R5CX\tdevice"], "packages": BOTH, "report": str(report)}
        (folder / "state.json").write_text(json.dumps(usual | state), encoding="utf-8")
        return folder

    return attach


def test_the_bundle_goes_there_and_the_file_comes_back(bundle: Path, phone, tmp_path):
    folder = phone(devices=["emulator-5554\toffline", "R5CX\tdevice"])
    stale = folder / FILES / "parity" / "parity-old.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}", encoding="utf-8")
    for prompts in (None, 2):  # the second time the bundle is there already
        assert json.loads(run_over_adb(bundle, "R5CX", prompts=prompts)) == {"from": "the phone"}
    sent = open_bundle(folder / FILES / "bundles" / bundle.name)
    assert sent.manifest == open_bundle(bundle).manifest
    assert not list((folder / FILES / "parity").iterdir())
    said = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [" -e prompts 2 " in line[3] for line in said if "instrument" in line[-1]] == [False, True]
    assert all(line[:2] == ["-s", "R5CX"] for line in said if line != ["devices"])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"devices": []}, "no phone is attached"),
        ({"devices": ["R5CX\tunauthorized"]}, "R5CX cannot be asked.*unauthorized.*unlock the phone"),
        ({"devices": ["R5CX\toffline"]}, "R5CX cannot be asked.*offline.*attach it again"),
        ({"devices": ["R5CX\tdevice", "R6\tdevice"]}, "several phones are attached"),
        ({"packages": []}, "ai.satchel.sample is not installed on R5CX.*build and install"),
        ({"packages": BOTH[:1]}, "ai.satchel.sample.test is not installed"),
        ({"packages": ["ai.satchel.sampler", BOTH[1]]}, "ai.satchel.sample is not installed"),
        ({"lose": 3}, "did not arrive whole.*room on the phone"),
        (
            {"instrument": "INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n"},
            "parity test failed on R5CX.*shortMsg=Process crashed.*adb logcat",
        ),
        (
            {"instrument": "INSTRUMENTATION_STATUS: Error=Unable to find runner\nINSTRUMENTATION_FAILED: x"},
            "parity test failed.*Unable to find",
        ),
        (
            {"instrument": "INSTRUMENTATION_RESULT: error=the model cannot be read\nINSTRUMENTATION_CODE: 0\n"},
            "parity test failed.*error=the model cannot be read",
        ),
        ({"instrument": "INSTRUMENTATION_CODE: -1\n"}, "wrote no file"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said(bundle: Path, phone, state, message):
    phone(**state)
    with pytest.raises(DeviceError, match=f"(?s){message}"):
        run_over_adb(bundle)


def test_without_adb_or_a_good_bundle_nothing_is_sent(bundle: Path, phone, tmp_path, monkeypatch):
    folder = phone()
    strange = Path(shutil.copytree(bundle, tmp_path / "my bundle.satchel"))
    with pytest.raises(UsageError, match="cannot be one on a phone"):
        run_over_adb(strange)
    (strange / "LICENSE").write_text("another", encoding="utf-8")
    with pytest.raises(BundleError):
        run_over_adb(strange)
    assert not (folder / "log.jsonl").exists()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"no adb to ask.*platform-tools"):
        run_over_adb(bundle)
