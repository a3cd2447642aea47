"""What leaves the engine follows the plan: each finding is there when its rule is broken, and not before."""

from dataclasses import replace

import pytest

from satchel.devices.forecast.engine import leaving_engine
from satchel.devices.forecast.models import known_model
from satchel.devices.forecast.weights import file_bytes, runtime_of
from satchel.devices.plan import Choice, Plan
from satchel.devices.planner import make_plan
from satchel.devices.profile import DeviceProfile, load_device
from satchel.devices.rulebook import load_rules

IPHONE, H13 = load_device("iphone-15-pro"), load_device("iphone-12")
SMOLLM2, QWEN = known_model("SmolLM2-135M").shape, known_model("Qwen2.5-0.5B").shape
PHI = known_model("Phi-3-mini").shape


def with_role(plan: Plan, **values: str) -> Plan:
    others = tuple(c for c in plan.choices if c.role not in values)
    return replace(plan, choices=(*others, *(Choice(r, v, "for a test", "test") for r, v in values.items())))


def rules(profile: DeviceProfile, plan: Plan, shape=SMOLLM2) -> set[str]:
    found = leaving_engine(profile, plan, shape)
    assert all(f.rule in {r.id for r in load_rules("neural-engine")} and f.what and f.why for f in found)
    return {f.rule for f in found}


def test_gather_and_8_bits_leave_the_oldest_engine_only():
    assert rules(IPHONE, make_plan(IPHONE, SMOLLM2)) == {"NE11b"}
    assert rules(H13, make_plan(H13, SMOLLM2)) == {"NE11a", "NE14"}
    assert "NE14" in rules(H13, make_plan(H13, SMOLLM2, weights="int8"))
    assert "NE14" not in rules(H13, make_plan(H13, SMOLLM2, weights="fp16"))


@pytest.mark.parametrize(("weights", "rule"), [("int4", "NE15"), ("fp32", "NE05a")])
def test_the_whole_model_leaves_with_scales_by_block_and_fp32(weights, rule):
    plan = make_plan(IPHONE, SMOLLM2, weights=weights)
    assert runtime_of(plan) == "coreml-gpu"
    (only,) = leaving_engine(IPHONE, plan, SMOLLM2)
    assert (only.rule, only.what) == (rule, "the whole model")


def test_a_head_wider_than_an_axis_leaves_until_it_is_split():
    plan = make_plan(IPHONE, QWEN)
    assert not {"NE02", "NE03"} & rules(IPHONE, plan, QWEN)
    assert "NE03" in rules(IPHONE, with_role(plan, lm_head="whole"), QWEN)
    assert "NE02" in rules(H13, with_role(make_plan(H13, QWEN), lm_head="split2"), QWEN)
    assert "NE03" not in rules(IPHONE, with_role(plan, lm_head="split3"), QWEN)


def test_a_long_context_goes_beyond_an_axis_of_older_engines():
    llama = known_model("Llama-3.2-1B").shape
    assert "NE02" in rules(H13, make_plan(H13, llama, context=16385), llama)
    assert not {"NE02", "NE03"} & rules(IPHONE, make_plan(IPHONE, llama, context=16385), llama)


def test_programs_beyond_the_sizes_leave_until_they_are_chunks():
    plan = make_plan(IPHONE, PHI, by_loss=True)
    assert file_bytes(plan, PHI) > 2**31
    assert "NE19b" in rules(IPHONE, with_role(plan, chunks="1"), PHI)
    assert "NE19a" in rules(IPHONE, with_role(plan, chunks="2"), PHI)
    assert not {"NE19a", "NE19b"} & rules(IPHONE, with_role(plan, chunks="3"), PHI)


def test_states_that_fail_on_the_engine():
    plan = make_plan(IPHONE, SMOLLM2)
    assert "NE21a" in rules(IPHONE, plan, replace(SMOLLM2, head_dim=80))
    longer = replace(plan, prefill_length=64)
    assert "NE21c" in rules(IPHONE, with_role(longer, cache_write="slice_update"))
    assert "NE21c" not in rules(IPHONE, with_role(longer, cache_write="mask"))
    assert "NE21a" not in rules(IPHONE, with_role(plan, cache="io"), replace(SMOLLM2, head_dim=80))


def test_nothing_leaves_where_there_is_no_engine_to_leave():
    pixel = load_device("pixel-9")
    assert leaving_engine(pixel, make_plan(pixel, SMOLLM2), SMOLLM2) == ()
    assert leaving_engine(IPHONE, make_plan(IPHONE, SMOLLM2, format="onnx"), SMOLLM2) == ()
