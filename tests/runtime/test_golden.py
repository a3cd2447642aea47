from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from satchel.runtime.errors import BundleError
from satchel.runtime.golden import Golden, GoldenPrompt, GoldenSet, condense


def small_golden() -> Golden:
    forced = [np.array([[0, 3, 1], [2, 2, -1], [0, 0, 0]], np.float32)]
    greedy = [np.array([[2, 2, -1], [0, 0, 5]], np.float32)]
    values = GoldenSet.from_logits(forced, greedy)
    return Golden(3, (GoldenPrompt("hé", (1, 2), (0, 2)),), {"reference": values, "weights": values})


def test_condense_agrees_with_sorting_and_gives_equal_logits_to_the_lower_id():
    random = np.random.default_rng(0)
    logits = random.integers(-4, 5, size=(20, 300)).astype(np.float32)
    ids, kept, whole, rest = condense(logits)
    for row, i, k, w, r in zip(logits.astype(np.float64), ids, kept, whole, rest, strict=True):
        expected = sorted(range(300), key=lambda j, row=row: (-row[j], j))[:32]
        assert list(i) == expected
        np.testing.assert_array_equal(k, row[expected])
        np.testing.assert_allclose(w, np.log(np.exp(row).sum()), rtol=1e-6)
        np.testing.assert_allclose(r, np.log(np.exp(np.delete(row, expected)).sum()), rtol=1e-6)
    assert condense(np.zeros((1, 5), np.float32))[0].tolist() == [[0, 1, 2, 3, 4]]
    assert condense(np.zeros((1, 5), np.float32))[3] == -np.inf


def test_what_is_written_is_read_and_rows_belong_to_their_prompts(tmp_path: Path):
    random = np.random.default_rng(1)
    prompts = (GoldenPrompt("a", (1, 2, 3), (4, 5, 6)), GoldenPrompt(None, (7,), (8, 9, 1)))
    forced = [random.normal(size=(n, 50)) for n in (5, 3)]
    greedy = [random.normal(size=(3, 50)) for _ in prompts]
    golden = Golden(50, prompts, {"reference": GoldenSet.from_logits(forced, greedy)})
    golden.write(tmp_path / "golden")
    read = Golden.read(tmp_path / "golden")
    assert read.prompts == prompts and [r for _, r in read.rows()] == [slice(0, 5), slice(5, 8)]
    for key, value in vars(golden.sets["reference"]).items():
        np.testing.assert_array_equal(getattr(read.sets["reference"], key), value)
    second = greedy[1][2].argsort()
    assert read.sets["reference"].greedy_ids[1, 2] == second[-1]
    assert read.sets["reference"].greedy_runner_up[1, 2] == second[-2]
    np.testing.assert_allclose(read.sets["reference"].greedy_gap[1, 2], np.ptp(greedy[1][2][second[-2:]]), rtol=1e-5)


def test_bytes_on_disk_are_these(tmp_path: Path):
    small_golden().write(tmp_path)
    kept = Path(__file__).parent.parent / "golden" / "golden.json"
    assert (tmp_path / "golden.json").read_bytes() == kept.read_bytes()
    assert (tmp_path / "reference.top_ids.i32").read_bytes() == bytes.fromhex(
        "010000000200000000000000000000000100000002000000000000000100000002000000"
    )
    assert (tmp_path / "reference.top_logits.f32").read_bytes() == bytes.fromhex(
        "000040400000803f000000000000004000000040000080bf000000000000000000000000"
    )
    assert (tmp_path / "weights.greedy_ids.i32").read_bytes() == bytes.fromhex("0000000002000000")
    assert (tmp_path / "weights.greedy_gap.f32").read_bytes() == bytes.fromhex("000000000000a040")
    assert (tmp_path / "weights.rest_logsumexp.f32").read_bytes() == bytes.fromhex("000080ff") * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.update(schema_version=2), "unknown schema"),
        (lambda g: g.update(note="x"), "unknown keys"),
        (lambda g: g.pop("vocab_size"), "missing"),
        (lambda g: g["prompts"][0]["ids"].append(3), "vocabulary"),
        (lambda g: g["prompts"][0]["ids"].append(2), "does not fit"),
        (lambda g: g["prompts"][0].update(ids="1"), "a list"),
        (lambda g: g["sets"].pop("reference"), "lacks the reference"),
        (lambda g: g["sets"].update(other=g["sets"]["weights"]), "unknown sets"),
        (lambda g: g["sets"]["weights"].pop("greedy_ids"), "incomplete"),
        (lambda g: g["sets"]["weights"]["top_ids"].update(file="../x"), "unexpected array"),
        (lambda g: g["sets"]["weights"]["top_ids"].update(shape=[2**40, 2**40]), "wrong size"),
        (lambda g: g["sets"]["weights"]["top_ids"].update(shape=[-3, -3]), "unexpected array"),
        (lambda g: g["sets"]["weights"]["top_ids"].update(shape=[9, 1]), "does not fit"),
    ],
)
def test_structure_that_does_not_hold_is_refused(tmp_path: Path, change, message: str):
    small_golden().write(tmp_path)
    structure = json.loads((tmp_path / "golden.json").read_text())
    change(structure)
    (tmp_path / "golden.json").write_text(json.dumps(structure))
    with pytest.raises(BundleError, match=message):
        Golden.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("reference.logsumexp.f32", b"\0" * 8, "wrong size"),
        ("reference.logsumexp.f32", bytes.fromhex("0000c07f") * 3, "NaN"),
        ("reference.top_ids.i32", b"\xff" * 36, "outside the vocabulary"),
        ("golden.json", b"{", "not valid JSON"),
    ],
)
def test_arrays_that_cannot_be_are_refused(tmp_path: Path, file: str, content: bytes, message: str):
    small_golden().write(tmp_path)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        Golden.read(tmp_path)


def test_missing_golden_data_is_said(tmp_path: Path):
    with pytest.raises(BundleError, match="no golden data"):
        Golden.read(tmp_path)
