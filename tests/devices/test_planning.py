"""Plans of all devices: every choice has its reason and its rule, and can be asked for or is refused by one."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import satchel.devices.planning
from satchel.devices.errors import PlanError
from satchel.devices.forecast.verdict import allowance_of
from satchel.devices.plan import Choice, ModelShape, Plan, Rejection
from satchel.devices.planner import WEIGHTS, make_plan
from satchel.devices.planning import sizes
from satchel.devices.profile import device_names, load_device
from satchel.devices.rulebook import all_rules, load_rules, rule
from satchel.runtime import strict_json

SMOL = ModelShape(30, 576, 9, 3, 64, 1536, 49152, 134_515_008, 8192, True)
LLAMA_3B = ModelShape(28, 3072, 24, 8, 128, 8192, 128_256, 3_212_749_824, 131_072, True)
PHI = ModelShape(24, 2048, 32, 32, 64, 8192, 51_200, 1_418_270_720, 2048, False, "gelu_tanh", "layer")
ODD = ModelShape(3, 66, 3, 1, 22, 70, 257, 60_000, 40, True)
DEVICES = {name: load_device(name) for name in device_names()}
ROLES = {
    "format", "weights", "kv_weights", "lut_groups", "scale_dtype", "target", "linear", "attention", "norm", "rotary",
    "activation", "activation_dtype", "embedding", "cache", "cache_dtype", "lm_head", "context_length",
    "prefill_length", "compute",
}  # fmt: skip
COREML = {"layout", "chunks", "minimum_os", "opset", "cache_write"}
IDENTIFIER = re.compile(r"\b[A-Z]{2}\d\d[a-z]?\b")


def rules_of(choice: Choice | Rejection) -> list[str]:
    return choice.source.split(", ")


def plans() -> list[tuple[str, str, ModelShape]]:
    return [(n, f, s) for n, p in DEVICES.items() for f in p.formats for s in (SMOL, LLAMA_3B, PHI, ODD)]


def test_every_choice_has_a_reason_and_a_rule_that_exists():
    for name, format, shape in plans():
        plan = make_plan(DEVICES[name], shape, format=format)
        roles = [choice.role for choice in plan.choices]
        assert len(set(roles)) == len(roles)
        assert set(roles) >= ROLES | (COREML if format == "coreml" else set())
        assert ("tied_head" in roles) == shape.tied_embeddings
        for choice in plan.choices:
            assert choice.value, (name, choice)
            assert all(i in all_rules() for i in rules_of(choice)), (name, choice)
            values = [choice.value, *(r.value for r in choice.rejected)]
            assert len(set(values)) == len(values), (name, choice)
            for told in (choice, *choice.rejected):
                assert len(told.reason) > 8 or told.reason == DEVICES[name].chip.title, (name, told)
                assert all(i in all_rules() for i in rules_of(told)), (name, told)
        assert plan["context_length"] == str(plan.context_length)
        assert plan["prefill_length"] == (str(plan.prefill_length) if plan.prefill_length else "any")
        assert make_plan(load_device(name), shape, format=format) == plan
        assert hash(plan)


def test_a_plan_is_read_back_as_a_manifest_holds_it():
    plan = make_plan(DEVICES["iphone-12"], PHI)
    text = strict_json.canonical(strict_json.encode(plan))
    assert strict_json.decode(Plan, json.loads(text), "plan") == plan
    assert json.loads(text) == plan.to_json()
    old = Plan("d", "onnx", 8, 0, (Choice("weights", "palette", "smallest", "rule 1", ("int4",)),))
    assert strict_json.decode(Plan, old.to_json(), "plan") == old


@given(
    name=st.sampled_from(sorted(DEVICES)),
    shape=st.sampled_from([SMOL, LLAMA_3B, PHI, ODD]),
    weights=st.sampled_from([None, *WEIGHTS]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_alternative_is_carried_out_or_refused_by_a_rule(name, shape, weights, data):
    profile, format = DEVICES[name], data.draw(st.sampled_from(DEVICES[name].formats))
    try:
        plan = make_plan(profile, shape, format=format, weights=weights)
    except PlanError as error:
        assert_names_a_rule(error)
        return
    for choice in plan.choices:
        if choice.role in ("format", "weights"):
            continue
        again = make_plan(profile, shape, format=format, weights=weights, overrides={choice.role: choice.value})
        assert [(c.role, c.value) for c in again.choices] == [(c.role, c.value) for c in plan.choices]
        for rejected in choice.rejected:
            try:
                other = make_plan(
                    profile, shape, format=format, weights=weights, overrides={choice.role: rejected.value}
                )
            except PlanError as error:
                assert_names_a_rule(error)
                continue
            found = next(c for c in other.choices if c.role == choice.role)
            assert found.value == rejected.value
            assert found.reason.startswith("asked for")
            assert choice.value in [r.value for r in found.rejected]


def assert_names_a_rule(error: PlanError) -> None:
    identifier, statement = str(error.wanted).removeprefix("rule ").split(": ", 1)
    assert all_rules()[identifier].statement == statement
    assert error.got
    assert error.hint


def test_no_threshold_and_no_unknown_rule_in_code():
    folder = Path(satchel.devices.planning.__file__).parent
    for path in [*folder.glob("*.py"), folder.parent / "planner.py"]:
        text = path.read_text(encoding="utf-8")
        numbers = [
            n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and type(n.value) in (int, float)
        ]
        assert not [(path.name, n.lineno, n.value) for n in numbers if n.value not in (0, 1, 2)]
        strings = [
            n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        assert not {i for s in strings for i in IDENTIFIER.findall(s)} - set(all_rules()), path.name


def test_every_rule_that_decides_plans_is_explained_in_the_documents():
    docs = Path(__file__).parents[2] / "docs"
    for name, document in (
        ("choices", "choices.md"),
        ("arm-cpu", "arm-cpu.md"),
        ("core-ml-targets", "neural-engine.md"),
    ):
        told = set(IDENTIFIER.findall((docs / document).read_text(encoding="utf-8")))
        assert told >= {r.id for r in load_rules(name)}, document


# --- what differs by device ---


def on(name: str, shape: ModelShape = SMOL, *, facts=None, **options) -> Plan:
    profile = DEVICES[name]
    return make_plan(profile.changed(**facts) if facts else profile, shape, **options)


def choice(plan: Plan, role: str) -> Choice:
    return next(c for c in plan.choices if c.role == role)


def turned_down(plan: Plan, role: str, value: str) -> Rejection:
    return next(r for r in choice(plan, role).rejected if r.value == value)


@pytest.mark.parametrize(
    ("system", "target", "cache", "prefill", "oldest"),
    [
        (15, "iOS16", "io", 1, "iOS 16, macOS 13"),
        (16, "iOS16", "io", 1, "iOS 16, macOS 13"),
        (17, "iOS17", "io", 1, "iOS 17, macOS 14"),
        (18, "iOS18", "state", 32, "iOS 18, macOS 15"),
        (26, "iOS18", "state", 32, "iOS 18, macOS 15"),
        (27, "iOS18", "state", 32, "iOS 18, macOS 15"),
    ],
)
def test_systems(system, target, cache, prefill, oldest):
    plan = on("iphone-15-pro", facts={"os_version": system})
    assert (plan["target"], plan["cache"], plan.prefill_length, plan["minimum_os"]) == (target, cache, prefill, oldest)
    modern = cache == "state"
    assert plan["cache_write"] == ("slice_update" if modern else "host")
    grouped = {"overrides": {"lut_groups": "rows16"}}
    if modern:  # grouped palettes exist, and are slow
        assert (
            rules_of(choice(on("iphone-15-pro", facts={"os_version": system}, **grouped), "lut_groups"))[0] == "NE16a"
        )
    else:
        with pytest.raises(PlanError, match="rule CT18"):
            on("iphone-15-pro", facts={"os_version": system}, **grouped)
    executorch = on("iphone-15-pro", facts={"os_version": system}, format="executorch")
    assert executorch["target"] == ("coreml" if modern else "xnnpack")  # the delegate needs states


def test_states_that_the_engine_refuses_are_not_planned_for_it():
    phi2 = dataclasses.replace(PHI, hidden_size=2560, head_dim=80)
    assert rules_of(choice(on("iphone-15-pro", phi2), "cache")) == ["NE21a"]
    assert (on("iphone-15-pro", phi2)["cache"], on("iphone-15-pro", phi2)["cache_write"]) == ("io", "host")
    assert on("iphone-15-pro", phi2, overrides={"cache": "state"})["cache"] == "state"
    assert on("iphone-15-pro", phi2, overrides={"compute": "cpuAndGPU"})["cache"] == "state"
    assert on("iphone-15-pro", PHI)["cache"] == "state"


def test_macs_have_the_target_of_the_same_year():
    for version, target in ((13, "iOS16"), (14, "iOS17"), (15, "iOS18"), (26, "iOS18")):
        assert on("macbook-m1", facts={"os_version": version})["target"] == target


@pytest.mark.parametrize("engine", ["H13", "H14", "H15", "H16", "H17", "H18"])
def test_engine_generations(engine):
    late = engine >= "H16"
    plan = on("iphone-15-pro", facts={"engine": engine})
    assert plan["activation"] == "half_tanh"
    assert rules_of(turned_down(plan, "activation", "silu"))[0] == "NE27"
    assert rules_of(turned_down(plan, "rotary", "sin_cos"))[0] == ("NE12b" if engine in ("H13", "H14") else "CH15")
    assert rules_of(turned_down(plan, "activation_dtype", "int8"))[0] == ("CH21" if late else "NE18")
    assert ("NE11a" in rules_of(choice(plan, "embedding"))) == (engine == "H13")
    heads = {v: on("iphone-15-pro", vocabulary(v), facts={"engine": engine})["lm_head"] for v in HEADS}
    assert heads == {v: found[late] for v, found in HEADS.items()}


def vocabulary(size: int) -> ModelShape:
    return dataclasses.replace(SMOL, vocab_size=size)


HEADS = {
    1_000: ("whole", "whole"), 16_384: ("whole", "whole"), 16_385: ("split2", "whole"), 32_064: ("split2", "whole"),
    49_152: ("split8", "split8"), 50_257: ("split8", "split8"), 65_537: ("split16", "split16"),
    151_936: ("split16", "split16"), 262_144: ("split16", "split16"), 300_000: ("split19", "split16"),
}  # fmt: skip
"""Vocabulary -> parts on engines whose axes hold 16,384, and 65,536."""


def test_units_follow_from_the_weights_and_the_engine():
    for weights, compute, rules in (
        ("palette", "cpuAndNeuralEngine", "NE25, NE01"), ("int8", "cpuAndNeuralEngine", "NE25, NE01"),
        ("int4", "cpuAndGPU", "NE15"), ("fp32", "cpuAndGPU", "NE05a, CH30"),
    ):  # fmt: skip
        plan = on("iphone-16", weights=weights)
        assert (plan["compute"], choice(plan, "compute").source) == (compute, rules)
        assert plan["linear"] == ("conv1x1" if "Neural" in compute else "linear")
        assert plan.prefill_length == (32 if "Neural" in compute else 64)  # NE21c speaks of the engine
    assert on("iphone-16", overrides={"cache_write": "mask"}).prefill_length == 64  # and of slice_update
    assert (on("iphone-16", weights="fp32")["cache"], on("iphone-16", weights="fp32")["cache_dtype"]) == (
        "io",
        "float32",
    )


def test_cpus():
    """i8mm for prompts or not; without dotprod int8 activations buy nothing."""
    for name in ("pixel-6", "galaxy-s21", "pixel-8", "galaxy-s24"):
        found = "AC06" in rules_of(choice(on(name), "linear"))
        assert found == ("i8mm" in DEVICES[name].isa) == (name not in ("pixel-6", "galaxy-s21"))
    pi = on("raspberry-pi-4", format="onnx")
    assert (pi["weights"], pi["accuracy_level"], pi["activation_dtype"]) == ("int4", "1", "float32")
    assert "dotprod" in choice(pi, "accuracy_level").reason
    useless = on("raspberry-pi-4", format="onnx", overrides={"accuracy_level": "4"})
    assert choice(useless, "accuracy_level").reason.startswith("asked for, although without dotprod")
    assert "buy nothing" in choice(on("raspberry-pi-4", format="onnx", weights="palette"), "accuracy_level").reason
    assert on("raspberry-pi-5", format="onnx", weights="int4")["accuracy_level"] == "4"
    assert on("raspberry-pi-4").format == "executorch"
    assert on("raspberry-pi-4")["linear"] == "qd8_qb4w"  # XNNPACK has kernels without dotprod
    slow = DEVICES["pixel-8"].chip.bandwidth_gb_s, rule("AC19").number("slow_gb_s")
    assert on("pixel-8", format="executorch")["weights"] == "palette"
    assert on("pixel-8", format="executorch", facts={"bandwidth_gb_s": slow[1]})["weights"] == "int4"
    assert slow[0] > slow[1]


def test_blocks_divide_rows():
    for name, format in (("pixel-9", "onnx"), ("raspberry-pi-5", "executorch"), ("iphone-16", "coreml")):
        with pytest.raises(PlanError, match="rule CH23"):
            on(name, ODD, format=format, weights="int4")
    assert on("raspberry-pi-5", ODD)["weights"] == "palette"  # although its profile prefers int4


def test_chunks_by_bytes():
    phone, mac = on("iphone-16", LLAMA_3B), on("macbook-m4", LLAMA_3B)
    assert (phone["chunks"], mac["chunks"]) == ("3", "1")
    assert (rules_of(choice(phone, "chunks"))[0], rules_of(choice(mac, "chunks"))[0]) == ("NE19a", "NE19b")
    spread = sizes.pieces(LLAMA_3B, "palette", shared=True)
    assert sum(spread) == sizes.model_bytes(LLAMA_3B, "palette")
    assert sizes.largest_chunk(spread, 3) <= rule("NE19a").number("most_bytes") < sizes.largest_chunk(spread, 2)
    assert "may leave the engine" in choice(on("iphone-16", LLAMA_3B, overrides={"chunks": "1"}), "chunks").reason
    larger = dataclasses.replace(LLAMA_3B, layers=40, parameters=8_000_000_000)
    with pytest.raises(PlanError, match="rule NE19b"):
        on("iphone-16", larger, overrides={"chunks": "1"})
    assert on("iphone-16", larger, overrides={"chunks": "1", "compute": "cpuAndGPU"})["chunks"] == "1"
    assert on("iphone-16", larger, format="executorch")["compute"] == "cpuAndGPU"  # a delegate has one program
    with pytest.raises(PlanError, match="1 to 30"):
        on("iphone-16", overrides={"chunks": "31"})


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(1, 8))
def test_spreading_is_the_best_there_is(spread, count):
    def best(left, parts):  # tries every cut
        if parts == 1 or len(left) == 1:
            return sum(left)
        return min(max(sum(left[:i]), best(left[i:], parts - 1)) for i in range(1, len(left)))

    count = min(count, len(spread))
    assert sizes.largest_chunk(spread, count) == best(spread, count)


def test_context_by_memory():
    phone, mac = on("iphone-12", LLAMA_3B), on("macbook-m4", LLAMA_3B)
    assert phone.context_length < mac.context_length == 1024
    assert (
        rules_of(choice(phone, "context_length"))[0]
        == rules_of(turned_down(phone, "context_length", "1024"))[0]
        == "CH17"
    )
    assert on("iphone-12").context_length == 1024
    assert "not expected to fit" in choice(on("iphone-12", LLAMA_3B, context=131_072), "context_length").reason
    weights = sizes.model_bytes(LLAMA_3B, "palette") + rule("CH17").number("runtime_bytes")
    for tokens in (256, 512, 1024):  # exactly enough memory, and a little less
        enough = (weights + sizes.cache_bytes(LLAMA_3B, tokens, "float16")) / 1e9
        assert on("iphone-12", LLAMA_3B, facts={"app_memory_gb": enough + 1e-6}).context_length == tokens
        shorter = on("iphone-12", LLAMA_3B, facts={"app_memory_gb": enough - 1e-6})
        assert shorter.context_length == max(tokens // 2, 256)


def test_planner_and_forecast_allow_an_app_the_same():
    for name, profile in DEVICES.items():
        assert sizes.app_memory(profile) == pytest.approx(allowance_of(profile).plain), name


def test_a_palette_that_could_not_be_folded_becomes_int4():
    assert (on("pixel-9")["weights"], on("pixel-9", LLAMA_3B)["weights"]) == ("palette", "int4")
    assert rules_of(choice(on("pixel-9", LLAMA_3B), "weights")) == ["CH04", "CH17"]
    assert on("pixel-9", LLAMA_3B, weights="palette")["weights"] == "palette"
    assert on("pixel-9", LLAMA_3B, facts={"memory_gb": 64.0})["weights"] == "palette"


# --- settled by the user ---


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("pixel-9", {"linear": "conv1x1"}, "rule CH21"),
        ("iphone-16", {"linear": "conv3x3"}, "wanted: conv1x1, linear"),
        ("iphone-16", {"liner": "conv1x1"}, "wanted: format, target, opset"),
        ("iphone-16", {"accuracy_level": "4"}, "no such role"),
        ("iphone-16", {"attention": "fused_sdpa"}, "rule NE09"),
        ("iphone-16", {"linear": "linear", "layout": "channels_first"}, "rule CH24"),
        ("iphone-16", {"target": "iOS17", "cache": "state"}, "rule CT18"),
        ("iphone-16", {"target": "iOS17", "weights": "int4"}, "rule CT18"),
        ("iphone-16", {"target": "iOS17", "prefill_length": "8"}, "rule CT18"),
        ("iphone-16", {"weights": "int4", "compute": "cpuAndNeuralEngine"}, "rule NE15"),
        ("iphone-16", {"minimum_os": "iOS 12"}, "follows from target"),
        ("iphone-16", {"prefill_length": "2000"}, "the cache holds 1024 tokens"),
        ("iphone-16", {"prefill_length": "-3"}, "whole number"),
        ("iphone-16", {"lm_head": "split0"}, "no value of this name"),
        ("iphone-16", {"lm_head": "split60000"}, "rule NE23"),
        ("iphone-16", {"context_length": "9000"}, "16 to 8192"),
        ("iphone-16", {"context_length": "long"}, "whole number"),
        ("macbook-m1", {"compute": "gpu"}, "no value of this name"),
        ("pixel-9", {"format": "coreml"}, "Apple's systems only"),
        ("raspberry-pi-4", {"target": "coreml"}, "rule CH12"),
    ],
)
def test_refusals(name, overrides, says):
    with pytest.raises(PlanError, match=says):
        on(name, overrides=overrides)


def test_what_was_asked_for_decides_what_follows():
    plain = on("iphone-16", overrides={"layout": "plain"})
    assert (plain["linear"], plain["attention"], plain["compute"]) == ("linear", "fused_sdpa", "cpuAndGPU")
    assert on("iphone-16", overrides={"compute": "cpuAndGPU"})["layout"] == "plain"
    gpu = on("iphone-16", overrides={"compute": "cpuAndGPU", "linear": "conv1x1"})
    assert (gpu["layout"], gpu["attention"], gpu.prefill_length) == ("channels_first", "per_head", 64)
    engine = on("iphone-16", overrides={"linear": "linear", "compute": "cpuAndNeuralEngine"})
    assert engine["attention"] == "batched"
    assert on("iphone-16", overrides={"lm_head": "split5"})["lm_head"] == "split5"
    old = on("iphone-16", overrides={"target": "iOS16"})
    assert (old["cache"], old["opset"], old.prefill_length) == ("io", "CoreML6", 1)
    assert on("iphone-16", overrides={"context_length": "64"}).context_length == 64
    with pytest.raises(PlanError, match="twice"):
        on("iphone-16", context=128, overrides={"context_length": "64"})
    assert choice(on("iphone-16", weights="int8"), "weights").reason.startswith("asked for")
    fp32 = on("pixel-9", format="executorch", overrides={"linear": "f32_qc8w"})
    assert fp32["activation_dtype"] == "float32"


def test_what_is_special_about_a_family():
    capped = dataclasses.replace(SMOL, softcapped=True)
    plain = {"layout": "plain"}
    assert on("iphone-16", capped, overrides=plain)["attention"] == "batched"
    assert on("pixel-9", capped, format="executorch")["attention"] == "capped_products"
    assert on("pixel-9", capped)["attention"] == "group_query_attention"  # whose kernel caps
    sparse = dataclasses.replace(SMOL, sparse_beyond=256, activation="gegelu")
    assert [on("pixel-9", sparse, format="executorch", context=c)["attention"] for c in (256, 257)] == [
        "custom_sdpa", "masked_products",
    ]  # fmt: skip
    with pytest.raises(PlanError, match="rule CH32"):
        on("iphone-16", capped, overrides=plain | {"attention": "fused_sdpa"})
    assert [on("pixel-9", dataclasses.replace(SMOL, rotated=n))["rotary"] for n in (0, 16, 24)] == [
        "in_attention", "in_attention", "tables",
    ]  # fmt: skip
    assert on("pixel-9", dataclasses.replace(SMOL, pre_norm=False))["norm"] == "by_itself"
    with pytest.raises(PlanError, match="rows of 60 weights"):
        on("pixel-9", dataclasses.replace(SMOL, row_lengths=(60, 576)), weights="int4")
    fewer = dataclasses.replace(SMOL, cached_heads=45)
    assert sizes.cache_bytes(fewer, 8, "float16") * 2 == sizes.cache_bytes(SMOL, 8, "float16")
