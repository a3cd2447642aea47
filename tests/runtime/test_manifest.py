from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy_bundle import manifest

from satchel.devices.plan import Choice, Plan
from satchel.export.model_card import model_card
from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError
from satchel.runtime.manifest import ChosenWidths, FileEntry, Manifest, check_path

KEPT = Path(__file__).parent.parent / "golden" / "manifest.json"


def complete() -> Manifest:
    return manifest(files=(FileEntry("golden/golden.json", 0, "ab" * 32), FileEntry("model.npy", 136, "0" * 64)))


def test_bytes_are_these_and_are_read_back():
    assert complete().to_bytes() == KEPT.read_bytes()
    assert Manifest.from_bytes(KEPT.read_bytes()) == complete()


def test_what_was_chosen_may_be_absent_and_is_told_in_words():
    chosen = ChosenWidths("at most 80.0 MB", 4.402, 0.05812, 1.5, {"4": 142, "4-symmetric": 2, "6": 66})
    with_choice = replace(complete(), weights=replace(complete().weights, selection=chosen))
    data = with_choice.to_bytes()
    assert Manifest.from_bytes(data) == with_choice and b'"selection"' not in complete().to_bytes()
    told = "4 bits: 142 linears, 4 bits without zero points: 2, 6 bits: 66; 4.40 bits a weight; expected KL 0.0581"
    assert str(chosen) == f"{told} (at most 80.0 MB)" and str(replace(chosen, budget="")) == told
    assert "single linears sum to a KL of 0.0581" in str(replace(chosen, correction=1.0))
    assert told in model_card(with_choice) and "expected KL" not in model_card(complete())
    lacking = json.loads(data)
    del lacking["weights"]["selection"]["budget"]
    with pytest.raises(BundleError, match=r"keys missing.*selection.*budget"):
        Manifest.from_bytes(json.dumps(lacking).encode())


def test_the_plan_s_own_json_is_the_manifest_s():
    assert complete().to_json()["plan"] == complete().plan.to_json()


text = st.text(max_size=20)


@given(role=text, value=text, tensors=st.dictionaries(text, text, max_size=3), options=st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-1e300, 1e300) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8))  # fmt: skip
def test_whatever_is_written_is_read_back_with_equal_bytes(role, value, tensors, options):
    base = complete()
    changed = replace(
        base,
        plan=Plan("d", "onnx", base.plan.context_length, 0, (Choice(role, value, "r", "s", (role,)),)),
        weights=replace(base.weights, tensors=tensors),
        entry=replace(base.entry, options={"any": options}),
    )
    data = changed.to_bytes()
    assert Manifest.from_bytes(data) == changed
    assert Manifest.from_bytes(data).to_bytes() == data


def altered(change) -> bytes:
    value = json.loads(complete().to_bytes())
    change(value)
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "unknown schema; got: 2; wanted: 1"),
        (lambda m: m.update(schema_version="1"), "unknown schema"),
        (lambda m: m.update(schema_version=True), "unknown schema"),
        (lambda m: m.pop("schema_version"), "unknown schema"),
        (lambda m: m.update(extra=1), r"unknown keys in manifest.json; got: \['extra'\]"),
        (lambda m: m["model"].update(url=""), "unknown keys in manifest.json.model"),
        (lambda m: m["entry"].pop("states"), r"keys missing from manifest.json.entry; got: \['states'\]"),
        (lambda m: m["files"][0].update(bytes="1"), r"manifest.json.files\[0\].bytes is not .*got: '1'; wanted: int"),
        (lambda m: m["files"][0].update(bytes=True), "wanted: int"),
        (lambda m: m["files"][0].update(bytes=1.0), "wanted: int"),
        (lambda m: m["files"][0].update(bytes=-1), "impossible"),
        (lambda m: m["files"][0].update(bytes=2**53), "beyond 2"),
        (lambda m: m["files"][0].update(sha256="AB" * 32), "impossible"),
        (lambda m: m["files"].append(dict(m["files"][0])), "listed twice"),
        (lambda m: m["files"].append(m["files"][0] | {"path": "GOLDEN/golden.json"}), "listed twice"),
        (lambda m: m["files"].append(m["files"][0] | {"path": "parity.json"}), "may not be listed"),
        (lambda m: m["files"].pop(), "not among the files"),
        (lambda m: m["files"][0].update(path="../x"), "outside the bundle"),
        (lambda m: m["entry"].update(path="/model.npy"), "outside the bundle"),
        (lambda m: m["entry"].update(format="pickle"), "wanted: .*coreml"),
        (lambda m: m["entry"].update(format="coreml"), "disagree"),
        (lambda m: m["entry"]["inputs"][0].update(shape=[1, None]), r"shape\[1\]"),
        (lambda m: (m["entry"].update(context_length=0), m["plan"].update(context_length=0)), "out of range"),
        (lambda m: m["tokens"].update(stop_ids=[999]), "outside the vocabulary"),
        (lambda m: m["tokens"].update(prepend_bos=True), "names none"),
        (lambda m: m["generation"].update(temperature=None), "wanted: float"),
        (lambda m: m["tools"].update(satchel=1), "wanted: str"),
    ],
)  # fmt: skip
def test_what_is_not_exactly_right_is_refused(change, message: str):
    with pytest.raises(BundleError, match=message):
        Manifest.from_bytes(altered(change))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"null", b"{", b"\xff\xfe{}", b'{"schema_version": 1, "schema_version": 1}',
        b'{"schema_version": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}", b'{"schema_version": 1}',
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(data: bytes):
    with pytest.raises(BundleError):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(
    "path", ["", "/a", "../a", "a/../b", "a//b", "./a", "a/", "a\\b", "C:a", "a\0", "a\n", "x" * 256]
)
def test_paths_that_are_not_plainly_below_the_bundle_are_refused(path: str):
    with pytest.raises(BundleError, match="outside the bundle or is not portable"):
        check_path(path)


def test_paths_of_an_mlpackage_are_good():
    path = "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin"
    assert check_path(path) == path


def test_canonical_json_is_one_thing():
    assert (
        strict_json.canonical({"b": [1, 2.5], "a": "é"})
        == '{\n  "a": "é",\n  "b": [\n    1,\n    2.5\n  ]\n}\n'.encode()
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        strict_json.canonical({"a": float("nan")})
