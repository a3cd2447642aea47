"""The verdict follows the memory, and what is suggested is true."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.devices.errors import PlanError
from satchel.devices.forecast import ENTITLED, FITS, NO, Request, forecast, largest, suggest
from satchel.devices.forecast.models import known_model, known_models
from satchel.devices.forecast.suggestions import relatives
from satchel.devices.forecast.verdict import Allowance, allowance_of, judged
from satchel.devices.plan import ModelShape
from satchel.devices.profile import device_names, load_device
from satchel.export.recipe import AVERAGE_BITS, AVERAGE_INT4_BITS, make_wishes, recipe_for

ORDER = {FITS: 0, ENTITLED: 1, NO: 2}
PHI, LLAMA = known_model("Phi-3-mini").shape, known_model("Llama-3.1-8B").shape


def test_with_and_without_the_entitlement():
    phone = load_device("iphone-15-pro")
    assert (phone.app_memory_gb, phone.app_memory_entitled_gb) == (3.0, 6)
    assert forecast(phone, PHI).verdict == FITS
    assert forecast(phone, LLAMA).verdict == ENTITLED
    assert forecast(phone, LLAMA, Request(weights="fp16")).verdict == NO
    assert judged(10, Allowance(10, 20, "")) == FITS
    assert judged(11, Allowance(10, 20, "")) == ENTITLED
    assert judged(21, Allowance(10, 20, "")) == NO


def test_where_there_is_no_limit_a_share_of_the_memory_counts():
    pixel = load_device("pixel-9")
    found = allowance_of(pixel)
    assert found.plain == found.entitled == pytest.approx(pixel.memory_gb * 0.5e9)
    assert "confidence L" in found.source
    assert allowance_of(load_device("raspberry-pi-5")).plain == pytest.approx(6.8e9)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(known_models()), st.sampled_from(["iphone-13", "pixel-7", "macbook-m1"]), st.floats(1.0, 5.0))
def test_more_memory_is_never_worse(model, device, factor):
    small = load_device(device)
    large = small.changed(
        memory_gb=small.memory_gb * factor, memory_most_gb=64.0, app_memory_gb=small.app_memory_gb * factor,
        app_memory_entitled_gb=small.app_memory_entitled_gb * factor,
    )  # fmt: skip
    for request in (Request(context=512, weights="palette"), Request(context=512, weights="int8")):
        before, after = (forecast(p, model.shape, request) for p in (small, large))
        assert ORDER[after.verdict] <= ORDER[before.verdict]
        assert largest(large, model.shape, after) >= largest(small, model.shape, before)


@pytest.mark.parametrize("device", ["iphone-12", "iphone-16", "pixel-6", "galaxy-s24", "raspberry-pi-4", "macbook-m1"])
def test_suggestions_are_true(device):
    profile, seen = load_device(device), set()
    for model in known_models():
        for asked in (Request(), Request(weights="fp16"), Request(context=min(32768, model.shape.max_position))):
            found = forecast(profile, model.shape, asked)
            ideas = suggest(profile, model.shape, found, asked)
            assert bool(ideas) <= (not found.fits)
            for idea in ideas:
                again = forecast(profile, idea.shape, idea.request)
                assert again.fits
                assert (again.verdict, again.memory.needed) == (idea.verdict, idea.needed)
                assert idea.request != asked or idea.shape != model.shape
                wishes = make_wishes(bits=idea.request.bits, weights=idea.request.weights)
                assert recipe_for(again.plan, wishes)  # an export takes it
                seen.add(idea.kind)
    assert {"model", "bits"} <= seen or device in ("raspberry-pi-4", "pixel-6")
    assert seen


def test_a_change_is_suggested_in_the_words_of_the_command():
    phone = load_device("iphone-13")
    found = forecast(phone, PHI, Request(context=4096))
    ideas = {idea.kind: idea for idea in suggest(phone, PHI, found, Request(context=4096))}
    assert not found.fits
    assert {i.model for i in ideas.values() if i.kind == "model"} <= {m.name for m in known_models()}
    assert all(i.options for i in ideas.values() if i.kind in ("bits", "context", "both"))
    assert all(m.shape.parameters < PHI.parameters for m in relatives(PHI))
    assert relatives(PHI)[0].family == "phi"


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(known_models()), st.sampled_from(device_names()))
def test_the_largest_model_that_fits_is_the_largest(model, device):
    profile, shape = load_device(device), model.shape
    request = Request(context=256)
    found = forecast(profile, shape, request)
    most = largest(profile, shape, found)
    if found.fits:
        assert most >= shape.parameters * 0.999
    else:
        assert most < shape.parameters


def test_what_cannot_be_planned_is_refused():
    with pytest.raises(PlanError):
        forecast(load_device("pixel-9"), PHI, Request("coreml"))
    with pytest.raises(PlanError):
        forecast(load_device("pixel-9"), PHI, Request(context=1_000_000))


def test_default_bits_are_those_of_an_export():
    from satchel.devices.forecast.constants import constant

    assert constant("palette.bits").value == AVERAGE_BITS
    assert constant("int4.bits").value == AVERAGE_INT4_BITS


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from(device_names()))
def test_no_shape_that_a_configuration_may_have_gives_another_error(data, device):
    def pick(*values: int) -> int:
        return data.draw(st.sampled_from(values))

    layers, hidden, heads, width = pick(1, 30, 1024), pick(1, 64, 1 << 18), pick(1, 7, 4096), pick(1, 80, 4096)
    inner, vocab, tied = pick(1, 96, 1 << 20), pick(1, 32000, 1 << 22), data.draw(st.booleans())
    linears = layers * (4 * heads * width * hidden + 3 * hidden * inner)
    parameters = linears + vocab * hidden * (1 if tied else 2)
    shape = ModelShape(
        layers, hidden, heads, heads, width, inner, vocab, parameters, pick(16, 2048, 1 << 31), tied
    )  # fmt: skip
    request = Request(weights=data.draw(st.sampled_from([None, "palette", "int4", "fp32", "source"])))
    profile = load_device(device)
    try:
        found = forecast(profile, shape, request)
    except PlanError as error:
        assert "rows of" in error.what or "hidden" in error.what  # noqa: PT017  (blocks that do not divide)
        return
    ideas = suggest(profile, shape, found, request)
    most = largest(profile, shape, found)
    assert most >= parameters * 0.999 if found.fits else most < parameters
    json.dumps([found.to_json(), [idea.to_json() for idea in ideas]], allow_nan=False)
    assert 0 < found.decode.low <= found.decode.value <= found.decode.high
    assert min(line.bytes for line in found.memory.lines) >= 0
