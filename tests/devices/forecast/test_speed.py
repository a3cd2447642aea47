"""Speed: against published figures, none of them hidden, and as properties of the formula."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.devices.chip import chip_names, load_chip
from satchel.devices.forecast import Request, forecast
from satchel.devices.forecast.calibrate import fit_compute, fit_cpu, fit_gpu, left_out, main, of_cpus, rows
from satchel.devices.forecast.constants import constant
from satchel.devices.forecast.models import known_model, known_models
from satchel.devices.forecast.speed import Machine, Work, cpu
from satchel.devices.forecast.speed import forecast as speed_of
from satchel.devices.profile import load_device

PIXEL, IPHONE = load_device("pixel-9"), load_device("iphone-15-pro")
SMOLLM2 = known_model("SmolLM2-135M").shape
DOCUMENT = Path(__file__).parents[3] / "docs" / "forecast.md"


def test_published_speeds_are_within_the_stated_range():
    outside = [(row.figure.name, row.what) for row in rows() if not row.within]
    beyond = [n for n in outside if n[1] == "prefill" and "16 bits" in n[0]]  # bfloat16 products, which are not ours
    assert outside == beyond
    assert len(rows()) >= 13
    named = {(r.figure.model, r.figure.device) for r in rows() if r.figure.fitted == "yes"}
    assert named == {
        ("SmolLM2-135M", "galaxy-s22"), ("Llama-3.2-1B", "oneplus-12"), ("Phi-4-mini", "iphone-15-pro"),
        ("Phi-3-mini", "iphone-14-pro"), ("Llama-3.1-8B", "macbook-pro-m1-max"),
    }  # fmt: skip


def test_how_far_each_figure_is():
    decodes = [r for r in rows() if r.what == "decode" and r.figure.at_least == "no"]
    assert all(0.75 < r.ratio < 1.2 for r in decodes)
    held_out = [r.ratio for r in decodes if r.figure.fitted == "no"]
    assert len(held_out) >= 6
    assert math.prod(held_out) ** (1 / len(held_out)) == pytest.approx(1, abs=0.06)
    for _, fit, ratio in left_out():
        assert 1 / 1.55 < ratio < 1.4
        assert 0.5 <= fit.efficiency <= 0.7


def test_the_constants_are_those_of_the_fit():
    fit = fit_cpu(of_cpus())
    assert constant("cpu.efficiency").value == pytest.approx(fit.efficiency)
    assert constant("cpu.overhead_s").value == pytest.approx(fit.overhead)
    assert constant("gpu.efficiency").value == pytest.approx(fit_gpu(), rel=0.01)
    assert constant("cpu.compute_efficiency").value == pytest.approx(fit_compute(), rel=0.02)


def test_the_document_has_the_residuals_as_they_are(capsys):
    main()
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    text = DOCUMENT.read_text("utf-8")
    assert [line for line in table if line not in text] == []


AMOUNT = st.floats(1e6, 1e11)


@given(AMOUNT, AMOUNT, st.integers(1, 100), st.floats(1e9, 1e12), st.floats(1e9, 1e14), st.floats(1.0, 4.0))
def test_more_bandwidth_or_throughput_is_never_slower(read, operations, layers, bandwidth, throughput, factor):
    work = Work(read, operations, layers, 1)
    base = speed_of(work, Machine(bandwidth, throughput, "cpu", ""))
    assert base.low <= base.value <= base.high
    for other in (
        Machine(bandwidth * factor, throughput, "cpu", ""), Machine(bandwidth, throughput * factor, "cpu", "")
    ):  # fmt: skip
        assert speed_of(work, other).value >= base.value * (1 - 1e-12)
    larger = speed_of(Work(read * factor, operations, layers, 1), Machine(bandwidth, throughput, "cpu", ""))
    assert larger.value <= base.value * (1 + 1e-12)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["iphone-15-pro", "pixel-9", "macbook-m4"]), st.floats(1.0, 3.0))
def test_a_faster_chip_is_never_slower(device, factor):
    profile = load_device(device)
    chip = profile.chip
    faster = profile.changed(bandwidth_gb_s=chip.bandwidth_gb_s * factor, engine_gb_s=chip.engine_gb_s * factor)
    for format in profile.formats:
        slow, fast = (forecast(p, SMOLLM2, Request(format)) for p in (profile, faster))
        assert slow.decode.value <= fast.decode.value
        assert slow.prefill.value <= fast.prefill.value


def test_what_the_time_goes_to():
    large = known_model("Llama-3.1-8B").shape
    found = forecast(PIXEL, large, Request("executorch", "int4"))
    assert (found.decode.bound, found.prefill.bound) == ("bandwidth", "compute")
    assert found.prefill.value > 3 * found.decode.value
    no_dot = forecast(PIXEL.changed(isa=()), large, Request("executorch", "int4"))
    assert no_dot.prefill.value < found.prefill.value / 3
    assert "GB/s x 0.59" in found.decode.formula
    measured = load_device("raspberry-pi-4").chip
    assert cpu(measured).bandwidth * constant("cpu.efficiency").value == pytest.approx(measured.measured_gb_s * 1e9)
    on_engine, on_gpu = (forecast(load_device("macbook-m4"), large, Request(weights=w)) for w in ("palette", "int4"))
    assert "Neural Engine of M4" in on_engine.decode.formula
    assert "GPU of M4" in on_gpu.decode.formula


@pytest.mark.parametrize("name", chip_names())
def test_every_chip_computes_at_some_rate(name):
    chip = load_chip(name)
    assert 1e10 < cpu(chip, wide=True).throughput <= cpu(chip).throughput < 3e13


def test_every_known_model_reads_less_than_it_holds():
    for model in known_models():
        found = forecast(IPHONE, model.shape, Request(context=256))
        bytes_read = float(found.decode.formula.split("max(")[1].split(" MB")[0].replace(",", "")) * 1e6
        cache = next(line.bytes for line in found.memory.lines if line.name == "cache")
        assert bytes_read <= 1.02 * (next(x.bytes for x in found.memory.lines if x.name == "weights") + cache)
