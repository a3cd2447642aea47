from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy_bundle import CONTEXT, NumpyBackend, golden_of, manifest, write_bundle

from satchel.runtime import backends, metrics, parity
from satchel.runtime.bundle import open_bundle
from satchel.runtime.errors import BundleError, UsageError, ValidationError
from satchel.runtime.golden import Golden, GoldenSet
from satchel.runtime.limits import FIGURES, LOWERING, MAXIMA, QUALITY, TIES, arithmetic, limits_for
from satchel.runtime.parity import ParityReport, Run, runs_for, validate
from satchel.runtime.replay import Answer, greedy_figures, replay


@pytest.fixture(autouse=True)
def numpy_backend(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(backends.BACKENDS, "onnx", "numpy_bundle:NumpyBackend")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("made") / "toy.satchel")


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "toy.satchel"))


def with_fault(monkeypatch: pytest.MonkeyPatch, fault: str, size: float, how: str = "fp32") -> None:
    run = Run("onnxruntime", how, {"fault": fault, "size": size})  # type: ignore[arg-type]
    monkeypatch.setattr(parity, "runs_for", lambda *_: (run,))


def failing(report: ParityReport) -> set[tuple[str, str]]:
    return {(row.comparison, row.route) for row in report.failures}


def test_a_right_bundle_passes_with_no_difference_and_its_report_is_written(path: Path, monkeypatch):
    with_fault(monkeypatch, "", 0)
    stages = []
    report = validate(path, progress=lambda *a: stages.append(a))
    assert report.passed and stages[-1] == ("Validating: onnxruntime", 3, 3)
    for comparison in ("lowering", "quality"):
        for route in ("decode", "prefill"):
            assert report.value("onnxruntime", comparison, route, "kl_max") < 1e-9
            assert report.value("onnxruntime", comparison, route, "top1") == 1
        assert report.value("onnxruntime", comparison, "greedy", "greedy_agreement") == 1
    golden = open_bundle(path).golden
    assert report.value("onnxruntime", "lowering", "decode", "positions") == golden.positions
    report.raise_if_failed()
    written = report.write(path)
    assert open_bundle(path) and [p.name for p in path.parent.iterdir()] == ["toy.satchel"]
    first, second = json.loads(written.read_text()), validate(path).to_json()
    timed = [value.pop("timings") for value in (first, second)]
    assert first == second and set(timed[0]["onnxruntime"]) == set(timed[1]["onnxruntime"])


def test_figures_are_those_of_full_logits(path: Path):
    bundle = open_bundle(path)
    clean, noisy, again = (NumpyBackend(path, bundle.manifest.entry, *f) for f in ((), ("noise", 0.3), ("noise", 0.3)))
    prompt = bundle.golden.prompts[0]
    full = np.stack([clean.step(i) for i in prompt.sequence]), np.stack([noisy.step(i) for i in prompt.sequence])
    rows = replay(again, bundle.golden, CONTEXT, lambda *_: None, "").rows["weights"]["decode"]  # the same noise
    kl = metrics.kl(*full)
    assert (rows.kl[0] <= kl + 1e-6).all() and (rows.kl[0] > 0.5 * kl).all()
    np.testing.assert_array_equal(rows.agrees[0], full[0].argmax(-1) == full[1].argmax(-1))
    top = np.argsort(-full[0], -1)[:, :32]
    difference = np.abs(np.take_along_axis(full[0], top, -1) - np.take_along_axis(full[1], top, -1)).max(-1)
    np.testing.assert_allclose(rows.difference[0], difference, rtol=1e-5)
    figures = rows.figures(tie=1e9)
    assert (
        figures["top1_or_tie"] == 1 > figures["top1"] and figures["kl_max"] >= figures["kl_p99"] >= figures["kl_mean"]
    )


@pytest.mark.parametrize(
    ("fault", "size", "routes", "hint"),
    [
        ("noise", 0.1, {"decode", "prefill"}, "both routes differ"),
        ("nan", 0, {"decode", "prefill"}, "both routes differ"),
        ("prefill", 0.3, {"prefill"}, "look at the prefill function"),
    ],
)
def test_a_fault_fails_where_it_is_and_the_report_says_where_to_look(path, monkeypatch, fault, size, routes, hint):
    with_fault(monkeypatch, fault, size)
    report = validate(path)
    assert {r for c, r in failing(report) if c == "lowering"} - {"greedy"} == routes
    with pytest.raises(ValidationError, match=f"beyond its limit.*got: .*wanted: <= 1e-05; next: .*{hint}"):
        report.raise_if_failed()
    failures = report.to_json()["failures"]
    assert failures and all({"figure", "value", "next", "route"} <= set(f) for f in failures)
    assert (
        b"NaN" not in (report.write(path)).read_bytes()
        and json.loads((path / "parity.json").read_text())["passed"] is False
    )


def test_a_fault_of_decode_steps_alone_is_told_apart(path: Path, monkeypatch):
    with_fault(monkeypatch, "decode", 0.2)
    report = validate(path)
    assert ("lowering", "decode") in failing(report)


def test_weights_that_are_not_good_enough_fail_quality_alone(path: Path, monkeypatch):
    with_fault(monkeypatch, "", 0)
    bundle = open_bundle(path)
    other = golden_of(NumpyBackend(path, bundle.manifest.entry), ["What is it?", "Once upon a time", [5, 6, 7]])
    forced = [np.random.default_rng(0).normal(size=(len(p.sequence), 259)) for p in other.prompts]
    bad = GoldenSet.from_logits(forced, [np.random.default_rng(1).normal(size=(32, 259)) for _ in other.prompts])
    mixed = Golden(other.vocab_size, other.prompts, {"reference": bad, "weights": other.sets["weights"]})
    monkeypatch.setattr(Golden, "read", lambda _: mixed)
    report = validate(path)
    assert {c for c, _ in failing(report)} == {"quality"}
    with pytest.raises(ValidationError, match="the weights are not good enough"):
        report.raise_if_failed()
    loosened = {"quality.kl_mean": 99, "quality.top1": None, "quality.greedy_agreement": 0}
    assert validate(path, limits=loosened).passed
    assert not validate(path, limits={**loosened, "quality.greedy_agreement": 0.99}).passed


def test_without_the_weights_set_only_quality_is_judged(path: Path, monkeypatch):
    read = Golden.read(path / "golden")
    monkeypatch.setattr(Golden, "read", lambda _: replace(read, sets={"reference": read.sets["reference"]}))
    assert {row.comparison for row in validate(path).rows} == {"quality"}


def test_short_contexts_cut_what_they_cannot_hold(path: Path):
    bundle = open_bundle(path)
    backend = NumpyBackend(path, replace(bundle.manifest.entry, context_length=14))
    result = replay(backend, bundle.golden, 14, lambda *_: None, "")
    assert result.skipped == 1 and len(result.answers["reference"]) == 2  # "Once upon a time" has 16 bytes
    assert result.answers["reference"][0].steps == 4 and result.answers["reference"][0].agreed == 4
    assert max(r.max() for r in result.rows["reference"]["prefill"].kl) < 1e-9


def test_a_quick_look_takes_the_first_prompts(path: Path):
    report = validate(path, prompts=1)
    assert report.value("onnxruntime", "lowering", "greedy", "prompts") == 1 and report.passed
    with pytest.raises(UsageError):
        validate(path, prompts=0)


def test_no_prompt_that_fits_is_said(tmp_path: Path, monkeypatch):
    made = write_bundle(tmp_path / "a.satchel")
    bundle = open_bundle(made)
    entry = replace(bundle.manifest.entry, context_length=2)
    short = replace(bundle, manifest=replace(bundle.manifest, entry=entry))
    with pytest.raises(BundleError, match="no golden prompt fits"):
        validate(short)


def test_greedy_answers_tell_near_ties_apart():
    tie = Answer(0, 3, 32, got=5, wanted=6, gap=0.01, runner_up=True)
    wide = replace(tie, gap=2.0, runner_up=False)
    same = Answer(1, 32, 32)
    assert [a.is_near_tie(0.1) for a in (tie, wide, same)] == [True, False, False]
    figures = greedy_figures([tie, tie, wide, same], 0.1)
    assert figures["greedy_diverged"] == 0.25 and figures["greedy_agreement"] == (3 * 3 / 32 + 1) / 4
    assert tie.to_json(0.1)["near_tie"] is True and "got" not in same.to_json(0.1)


def test_runs_for_each_format(path: Path, monkeypatch):
    bundle = open_bundle(path)
    assert runs_for(bundle) == (Run("onnxruntime", "int8"),)
    with pytest.raises(UsageError, match="Core ML's"):
        runs_for(bundle, precisions=("fp16",))
    entry = replace(bundle.manifest.entry, format="coreml")
    coreml = replace(bundle, manifest=replace(bundle.manifest, entry=entry))
    monkeypatch.setattr(sys, "platform", "linux")
    assert [(r.name, r.arithmetic) for r in runs_for(coreml)] == [
        ("interpreter fp32", "fp32"),
        ("interpreter fp16", "fp16"),
    ]
    assert [r.name for r in runs_for(coreml, precisions=("fp16",))] == ["interpreter fp16"]
    with pytest.raises(UsageError, match="no such engine here"):
        runs_for(coreml, engines=("framework",))
    monkeypatch.setattr(sys, "platform", "darwin")
    assert [r.name for r in runs_for(coreml)] == ["interpreter fp32", "interpreter fp16", "framework"]
    assert [r.name for r in runs_for(coreml, engines=("framework",))] == ["framework"]


def test_limits_table_is_whole_and_can_be_overridden():
    for limits in (*LOWERING.values(), *QUALITY.values()):
        assert limits and all(limit.figure in FIGURES and limit.reason for limit in limits)
    assert set(QUALITY) == {"palette", "int4", "int8", "fp16", "fp32", "source"} and set(LOWERING) == set(TIES)
    assert [arithmetic("onnx", s) for s in ("fp32", "palette")] == ["fp32", "int8"]
    assert arithmetic("coreml", "source", "fp32") == "fp16"
    assert [arithmetic("coreml", "palette", p) for p in ("fp32", "fp16", None)] == ["fp32", "fp16", "fp16"]
    base = {limit.figure: limit.value for limit in limits_for("lowering", "fp32", "palette")}
    overrides = {"lowering.kl_mean": 1, "lowering.kl_max": None, "quality.top1": 0}
    changed = {limit.figure: limit.value for limit in limits_for("lowering", "fp32", "palette", overrides)}
    assert changed == {k: v for k, v in base.items() if k != "kl_max"} | {"kl_mean": 1}
    for wrong in ({"kl_mean": 1}, {"lowering.kl": 1}):
        with pytest.raises(UsageError, match="not known"):
            limits_for("quality", "fp32", "palette", wrong)
    for limit in LOWERING["fp32"]:
        assert limit.allows(limit.value) and not limit.allows(float("nan"))
        assert not limit.allows(limit.value + (1e-3 if limit.figure in MAXIMA else -1e-3))
    assert manifest().entry.context_length == CONTEXT
