"""Memory and sizes: against transformers' own tensors, against what was measured, and as properties."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache

from satchel.devices.forecast import Forecast, Request, forecast
from satchel.devices.forecast.models import known_model, known_models
from satchel.devices.plan import ModelShape
from satchel.devices.profile import load_device

PIXEL, IPHONE, OLD_IPHONE = (load_device(n) for n in ("pixel-9", "iphone-15-pro", "iphone-12"))
SMOLLM2 = known_model("SmolLM2-135M").shape
MEASURED = {  # MB of benchmarks/held_memory.py: own memory after loading, the peak while loading; bundle
    ("onnx", "palette"): (246, 595, 87.7),
    ("onnx", "int4"): (169, 203, 92.2),
    ("executorch", "palette"): (201, 263, 138.1),
    ("executorch", "int4"): (154, 214, 91.0),
}


def lines(found: Forecast) -> dict[str, float]:
    return {line.name: line.bytes / 1e6 for line in found.memory.lines}


@pytest.mark.parametrize(("format", "weights"), MEASURED)
def test_what_bundles_of_smollm2_were_measured_to_hold(format, weights):
    held, peak, bundle = MEASURED[format, weights]
    low = Request(format=format, weights=weights, by_loss=False, tokenizer_bytes=1_563_639)
    found = forecast(PIXEL, SMOLLM2, low)
    of = lines(found)
    allocated = of["cache"] if format == "executorch" else 0  # onnxruntime's backend takes it as it is filled
    assert of["weights"] + allocated == pytest.approx(held, rel=0.08)
    assert found.storage.bundle / 1e6 == pytest.approx(bundle, rel=0.02)
    if weights == "palette" and format == "onnx":
        assert of["weights"] + of["folding"] == pytest.approx(peak, rel=0.1)


def test_published_memory():
    phi = known_model("Phi-4-mini").shape
    found = forecast(load_device("iphone-15-pro"), phi, Request("executorch", "int4", 128))
    narrower = phi.vocab_size * phi.hidden_size * 3.5 / 8  # the published file has its head in 4.5 bits, ours in 8
    assert found.memory.of("held") - narrower == pytest.approx(3206e6, rel=0.1)
    for name, rss in (("Llama-3.2-1B", 2014e6), ("Llama-3.2-3B", 3907e6)):  # RSS counts what is mapped and touched
        memory = forecast(
            load_device("oneplus-12"), known_model(name).shape, Request("executorch", "int4", 2048)
        ).memory
        assert memory.of("held") * 0.85 < rss < memory.of("held") + memory.of("mapped")


@pytest.mark.parametrize(("tied", "kv"), [(True, 2), (False, 4)])
def test_counts_are_those_of_transformers(tied, kv):
    config = LlamaConfig(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=kv, tie_word_embeddings=tied, max_position_embeddings=512,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    shape = ModelShape(3, 64, 4, kv, 16, 96, 320, sum(p.numel() for p in model.parameters()), 512, tied)
    found = forecast(PIXEL, shape, Request("onnx", "fp32", 128))
    stored = sum(p.nbytes for p in model.parameters())
    assert found.memory.of("mapped") == stored
    cache = StaticCache(config=config, max_cache_len=128)
    model(torch.zeros(1, 1, dtype=torch.long), past_key_values=cache)
    assert lines(found)["cache"] * 1e6 == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    half = forecast(IPHONE, shape, Request("coreml", "palette", 128))
    assert lines(half)["cache"] * 1e6 * 2 == lines(found)["cache"] * 1e6


def test_each_runtime_holds_weights_in_its_way():
    def weights(profile, **request):
        return lines(forecast(profile, SMOLLM2, Request(**request)))["weights"]

    ios16, ios17 = (IPHONE.changed(os_version=v) for v in (16, 17))
    expanded = 2 * SMOLLM2.parameters / 1e6
    assert weights(ios16) == pytest.approx(expanded)  # palettes are expanded when the model is loaded
    assert weights(ios17) == weights(IPHONE) < 0.4 * expanded
    assert weights(OLD_IPHONE, weights="int8") == pytest.approx(expanded)  # H13 streams no int8
    assert weights(IPHONE, weights="int8") == pytest.approx(expanded / 2, rel=0.02)
    assert (
        weights(PIXEL, format="executorch", weights="palette")
        > 1.6 * weights(PIXEL, format="executorch", weights="int4")
        - lines(forecast(PIXEL, SMOLLM2, Request()))["tokenizer"]
    )
    assert weights(ios17, bits=3) == weights(ios17, bits=4)  # stored as 4 before iOS18
    assert weights(IPHONE, bits=3) < weights(IPHONE, bits=4)


SHAPES = st.sampled_from([m.shape for m in known_models()])
DEVICES = st.sampled_from(["iphone-12", "iphone-15-pro", "macbook-m4", "pixel-6", "pixel-9", "raspberry-pi-4"])


@settings(max_examples=60, deadline=None)
@given(SHAPES, DEVICES, st.data())
def test_more_context_and_more_bits_never_need_less(shape, device, data):
    profile = load_device(device)
    format = data.draw(st.sampled_from(profile.formats))
    short, long = sorted(data.draw(st.tuples(*[st.integers(16, min(shape.max_position, 8192))] * 2)))
    weights = data.draw(st.sampled_from(["palette", "int4", "int8", "fp16"]))
    a, b = (forecast(profile, shape, Request(format, weights, length)) for length in (short, long))
    assert a.memory.needed <= b.memory.needed
    assert a.decode.value >= b.decode.value
    fewer, more = sorted(data.draw(st.tuples(*[st.sampled_from([2, 3, 4, 6, 8])] * 2)))
    few, many = (forecast(profile, shape, Request(format, "palette", short, bits)) for bits in (fewer, more))
    assert few.memory.of("held") <= many.memory.of("held")  # onnxruntime's peak is higher for 3 bits than for 4
    assert few.storage.install <= many.storage.install
    assert few.decode.value >= many.decode.value
    schemes = [forecast(profile, shape, Request(format, w, short)) for w in ("int8", "fp16", "fp32")]
    assert [f.memory.needed for f in schemes] == sorted(f.memory.needed for f in schemes)


@settings(max_examples=40, deadline=None)
@given(SHAPES, DEVICES, st.integers(2, 5))
def test_a_deeper_model_needs_more(shape, device, factor):
    deep = replace(shape, layers=shape.layers * factor, parameters=shape.parameters * factor)
    a, b = (forecast(load_device(device), s, Request(context=256)) for s in (shape, deep))
    if a.plan["weights"] == b.plan["weights"] and a.plan.get("layout", "") == b.plan.get("layout", ""):
        assert a.memory.needed < b.memory.needed
        assert a.loading.first < b.loading.first
        assert a.decode.value > b.decode.value


@pytest.mark.parametrize("format", ["coreml", "onnx", "executorch"])
def test_bundles_are_as_large_as_forecast(smollm2_bundles: dict[str, Path], format):
    bundle = smollm2_bundles[format]
    size = sum(f.stat().st_size for f in bundle.rglob("*") if f.is_file())
    device = bundle.stem.removeprefix("SmolLM2-135M-Instruct-")
    found = forecast(load_device(device), SMOLLM2, Request(by_loss=False))
    assert found.storage.bundle == pytest.approx(size, rel=0.04)
