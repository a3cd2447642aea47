from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_bundle import CONTEXT, NumpyBackend, write_bundle

from satchel.runtime import backends, metrics
from satchel.runtime.bundle import MANIFEST, open_bundle, sha256
from satchel.runtime.errors import OutputError, UsageError
from satchel.runtime.parity import validate
from satchel.runtime.parity_file import file_name, read_record, write_record
from satchel.runtime.parity_host import host_of
from satchel.runtime.report.comparison import compare
from satchel.runtime.report.page import page

WEB = Path(__file__).parent / "report" / "parity-web.json"
"""What sample_apps/web's tests wrote, from the bundle in sample_apps/vectors."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("made") / "toy.satchel")


@pytest.fixture(autouse=True)
def numpy_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "onnx", "numpy_bundle:NumpyBackend")


def test_positions_are_those_of_full_logits(bundle: Path, tmp_path: Path):
    written = write_record(validate(bundle).record(host_of("onnx")), tmp_path / "parity-here.json")
    record, opened = read_record(written), open_bundle(bundle)
    assert record.bundle.bytes == opened.bytes and record.bundle.manifest == sha256(bundle / MANIFEST)
    assert record.host and record.host["threads"] and record.device
    (run,) = record.runs
    assert run.positions is not None
    backend, golden = NumpyBackend(bundle, opened.manifest.entry), opened.golden
    full = []
    for prompt, _ in golden.rows():
        backend.reset()
        full += [backend.step(i) for i in prompt.sequence]
    assert run.positions.rows == tuple(range(len(full))) and golden.positions == len(full) <= 3 * CONTEXT
    assert run.positions.best == tuple(int(np.argmax(x)) for x in full)
    np.testing.assert_allclose(run.positions.margin, [np.diff(np.sort(x)[-2:])[0] for x in full], rtol=1e-4, atol=1e-6)
    top = golden.sets["reference"].top_ids[:, :4]
    np.testing.assert_allclose(
        np.reshape(run.positions.logits, (-1, 4)), np.take_along_axis(np.stack(full), top, -1), rtol=1e-5
    )
    assert max(metrics.kl(np.stack(full), np.stack(full))) < 1e-9 > max(run.positions.kl["lowering"])  # type: ignore[type-var]
    prompts = [p for p, _ in golden.rows()]
    assert run.positions.place(len(prompts[0].sequence) + 2) == (1, 2)
    assert [a.ids for a in run.answers["quality"]] == [tuple(ids) for ids in golden.sets["reference"].greedy_ids]


def test_the_web_apps_file_is_read():
    record = read_record(WEB)
    assert record.device == "test" and "onnxruntime-web" in str((record.host or {})["runtime"])
    assert record.runs[0].value("lowering", "decode", "kl_mean") is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema_version=2), "unknown schema"),
        (lambda v: v.update(more=1), "unknown keys"),
        (lambda v: v["host"].update(deep={}), "host"),
        (lambda v: v["runs"][0]["positions"]["best"].pop(), "differ in length"),
        (lambda v: v["runs"][0]["positions"]["rows"].reverse(), "not in order"),
        (lambda v: v["runs"][0]["positions"].update(starts=[]), "not in order"),
        (lambda v: v["runs"][0]["positions"].update(starts=[5]), "not in order"),
        (lambda v: v["runs"][0].update(layers={"rows": [], "error": {"a": [1], "b": []}}), "layers of .* differ"),
    ],
)
def test_other_files_are_refused(bundle: Path, tmp_path: Path, change, message):
    value = validate(bundle, prompts=1).record({"device": "x"})
    change(value)
    with pytest.raises(UsageError, match=f"(?s)no parity file.*{message}"):
        read_record(write_record(json.loads(json.dumps(value)), tmp_path / "a.json"))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_altered_files_are_read_or_refused_and_nothing_else(data: st.DataObject):
    value = json.loads(WEB.read_text())
    place: Any = value
    while True:
        key = data.draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else data.draw(
            st.integers(0, len(place) - 1)
        )  # fmt: skip
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.integers(0, 4)) == 0:
            break
        place = place[key]
    anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just([]) | st.just({})
    place[key] = data.draw(anything)
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        path.write_text(json.dumps(value))
        try:
            record = read_record(path)
        except UsageError:
            return
        other = read_record(WEB)
        assert page(compare([other, record, other])).startswith("<!doctype html>")


def test_files_that_are_none(tmp_path: Path):
    for content in (b"", b"[]", b"\xff", b'{"schema_version": 1}', b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(UsageError, match="no parity file"):
            read_record(tmp_path / "a.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_record(tmp_path / "none.json")
    with pytest.raises(OutputError):
        write_record({}, tmp_path / "none" / "a.json")


def test_names_of_devices_become_names_of_files():
    assert file_name("Pixel 9 Pro (XL)") == "parity-pixel-9-pro-xl.json"
    assert file_name("../../etc") == "parity-etc.json" and file_name("…") == "parity-machine.json"
    assert host_of("onnx", emulated="cortex-a76")["device"] == "cortex-a76-emulated"
