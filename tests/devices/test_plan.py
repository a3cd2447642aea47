"""Profiles are strict, and plans differ where devices do."""

import dataclasses

import pytest

from satchel.devices.errors import DeviceError, PlanError
from satchel.devices.plan import ModelShape
from satchel.devices.planner import make_plan
from satchel.devices.profile import DeviceProfile, device_names, load_device

SHAPE = ModelShape(30, 576, 9, 3, 64, 1536, 49152, 134_515_008, 8192, True)
IPHONE, PIXEL, PI = (load_device(n) for n in ("iphone-15-pro", "pixel-9", "raspberry-pi-5"))


def test_every_profile_reads_and_names_its_sources():
    assert {"iphone-15-pro", "pixel-9", "raspberry-pi-5"} <= set(device_names())
    for name in device_names():
        profile = load_device(name)
        assert profile.formats
        assert all(profile.source(fact) for fact in ("isa", "memory_gb", "bandwidth_gb_s"))


def test_the_three_devices_get_their_own_ops():
    a, b, c = make_plan(IPHONE, SHAPE), make_plan(PIXEL, SHAPE), make_plan(PI, SHAPE)
    assert (a.format, b.format, c.format) == ("coreml", "onnx", "executorch")
    assert (a["layout"], a["linear"], a["cache"], a["lm_head"], a.prefill_length) == (
        "channels_first",
        "conv1x1",
        "state",
        "split8",
        32,
    )
    assert (b["weights"], b["linear"], b["attention"]) == ("palette", "matmul_nbits", "group_query_attention")
    assert (c["weights"], c["linear"], c["scale_dtype"]) == ("int4", "qd8_qb4w", "bfloat16")
    for plan in (a, b, c):
        assert all(choice.reason and choice.source for choice in plan.choices)
        assert plan.context_length == 1024


def older(profile: DeviceProfile, **changes: object) -> DeviceProfile:
    return profile.changed(**changes)


def test_choices_follow_the_facts():
    ios16 = make_plan(older(IPHONE, os_version=16), SHAPE)
    assert (ios16["target"], ios16["cache"]) == ("iOS16", "io")
    assert make_plan(older(IPHONE, engine=""), SHAPE)["layout"] == "plain"
    assert make_plan(IPHONE, SHAPE, weights="int4")["layout"] == "plain"  # blocks are not for the engine
    assert make_plan(older(PIXEL, isa=("fp16",)), SHAPE, weights="int4")["accuracy_level"] == "1"
    assert make_plan(PIXEL, SHAPE, weights="int4")["accuracy_level"] == "4"
    assert make_plan(PIXEL, SHAPE, weights="source")["accuracy_level"] == "4"
    assert make_plan(IPHONE, SHAPE, weights="source")["layout"] == "plain"
    assert make_plan(IPHONE, SHAPE, format="executorch", weights="source")["target"] == "coreml"
    large = dataclasses.replace(SHAPE, parameters=14_000_000_000)
    assert make_plan(IPHONE, large)["layout"] == "channels_first"  # in packages, since a program's bytes are limited
    assert int(make_plan(IPHONE, large)["chunks"]) > 1
    assert make_plan(PIXEL, SHAPE)["kv_weights"] == make_plan(IPHONE, SHAPE)["kv_weights"] == "int8"
    many = dataclasses.replace(SHAPE, kv_heads=9)
    assert make_plan(PIXEL, many)["kv_weights"] == "as_linear"
    assert make_plan(PIXEL, many, by_loss=True)["kv_weights"] == "by_loss"
    assert make_plan(PIXEL, SHAPE, weights="int4")["kv_weights"] == "as_linear"
    assert make_plan(IPHONE, SHAPE, format="executorch")["target"] == "coreml"
    assert make_plan(PIXEL, SHAPE, format="executorch")["target"] == "xnnpack"
    assert make_plan(IPHONE, dataclasses.replace(SHAPE, vocab_size=151_936))["lm_head"] == "split16"
    assert (
        make_plan(IPHONE, dataclasses.replace(SHAPE, vocab_size=50_257))["lm_head"] == "split8"
    )  # a prime number: the last part is shorter
    assert make_plan(PIXEL, dataclasses.replace(SHAPE, max_position=512)).context_length == 512


@pytest.mark.parametrize(
    ("profile", "options", "says"),
    [
        (PIXEL, {"format": "coreml"}, "Core ML exists on Apple's systems only"),
        (PIXEL, {"format": "tflite"}, "unknown format"),
        (PIXEL, {"weights": "int3"}, "unknown weight scheme"),
        (PIXEL, {"context": 9000}, "16 to 8192"),
        (PIXEL, {"context": 1}, "context length out of range"),
        (older(IPHONE, os_version=17), {"weights": "int4"}, "constexpr_blockwise_shift_scale"),
    ],
)
def test_refusals_say_why(profile, options, says):
    with pytest.raises(PlanError, match=says):
        make_plan(profile, SHAPE, **options)


def test_an_unknown_device_answers_with_the_known_ones():
    with pytest.raises(DeviceError, match="pixel-9"):
        load_device("nokia-3310")
