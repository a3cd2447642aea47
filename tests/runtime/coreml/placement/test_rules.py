"""Every rule that moves an op, on a program that breaks it and on one that just does not; which ops go, and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb
from rule_cases import CASES
from rule_programs import RULES, Make, dense, edited, palette, program, scaled, unknown_axis, with_states

from satchel.runtime.coreml.checks import resolve_target
from satchel.runtime.coreml.placement import SETTINGS, Forecast, forecast
from satchel.runtime.mil.package import open_package

MOVING = sorted(rule.id for rule in RULES.values() if rule.leaves and rule.leaves != "run")
LEAVING = {
    "NE05a": {"relu"}, "NE05c": {"relu"}, "NE11a": {"gather"}, "NE12d": {"less", "add", "mul", "while_loop"},
    "NE15": {"matmul"}, "NE21c": {"slice_update"},
}  # fmt: skip
"""Types of the ops that go because of a rule, where they are not all."""


def placed(path: Path, rule: str, target: str | None, settings: dict[str, Any], least_work: int = 0) -> Forecast:
    """A forecast with other parameters of one rule, and of the one about small programs."""
    rules = RULES | {rule: replace(RULES[rule], parameters={**RULES[rule].parameters, **settings})}
    if rule != "NE25":
        rules["NE25"] = replace(RULES["NE25"], parameters={"least_work": least_work})
    return forecast(open_package(path), resolve_target(target), rules.values(), "all")


def moved(found: Forecast, rule: str) -> list[tuple[str, str]]:
    """(type, unit) of the ops that a rule moves."""
    return [
        (op.type, f.placements["all"].units[i])
        for f in found.functions
        for i, op in enumerate(f.ops)
        if rule in (reason.rule.id for reason in f.placements["all"].reasons(i))
    ]


@pytest.mark.parametrize("rule", MOVING)
def test_a_broken_rule_moves_its_ops_and_its_neighbour_stays(rule: str, tmp_path: Path) -> None:
    case = CASES[rule]
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    bad = placed(case.bad(tmp_path / "bad"), rule, case.target, case.settings)
    good = placed((case.good or case.bad)(tmp_path / "good"), rule, case.good_target, case.good_settings)
    ops = {op.type for f in bad.functions for op in f.ops}
    gone = moved(bad, rule)
    assert {op_type for op_type, _ in gone} == LEAVING.get(rule, ops)
    assert "engine" not in {unit for _, unit in gone}
    if rule != "NE05c":  # fp32 at the border is computed in as well, and that decides
        assert RULES[rule].unit in {unit for _, unit in gone}
    assert moved(good, rule) == []
    for function in bad.functions:
        stayed = [i for i, op in enumerate(function.ops) if op.type not in {t for t, _ in gone}]
        assert all(function.placements["all"].units[i] == "engine" for i in stayed)
    assert all(set(f.placements["all"].units) == {"engine"} for f in good.functions)


def test_every_rule_about_leaving_is_tried() -> None:
    assert set(MOVING) <= set(CASES)
    said = {r.id for r in RULES.values() if "leaves the engine" in r.why or "runs on the CPU" in r.why}
    assert said <= {*MOVING, "NE25", "NE27"}  # NE27 only says that silu may be lowered so


# ---- in the middle of a program that stays -------------------------------------------------------------------------

WIDE = {"x": ((1, 64, 1, 64), "float16")}


def between(middle: Any) -> Make:
    """A conv, what is tried, and a conv."""

    def body(x: Any) -> Any:
        y = middle(mb.conv(x=x, weight=dense(64, 64, 1, 1), name="before"))
        return mb.conv(x=y, weight=dense(64, 64, 1, 1), name="after")

    return program(body, WIDE)


MIDDLES = {
    "NE05a": (lambda y: mb.cast(x=mb.exp(x=mb.cast(x=y, dtype="fp32")), dtype="fp16"), "exp", None),
    "NE12a": (lambda y: mb.mod(x=y, y=np.float16(3)), "mod", None),
    "NE12b": (lambda y: mb.cos(x=y), "cos", "H13"),
    "NE13c": (lambda y: mb.conv(x=y, weight=dense(64, 64, 1, 1), dilations=[1, 7], name="m"), "conv", None),
    "NE15": (lambda y: mb.matmul(x=y, y=scaled(np.ones((64, 64), np.int8), (64, 2))), "matmul", None),
    "NE04": (lambda y: mb.reshape(x=mb.tanh(x=mb.reshape(x=y, shape=[1, 8, 8, 1, 8, 8])), shape=[1, 64, 1, 64]),
             "tanh", None),
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(MIDDLES))
def test_an_op_in_the_middle_splits_the_program_in_two(rule: str, tmp_path: Path) -> None:
    middle, op_type, target = MIDDLES[rule]
    (function,) = placed(between(middle)(tmp_path), rule, target, {}).functions
    placement = function.placements["cpuAndNeuralEngine"]
    by_name = {op.name: placement.units[i] for i, op in enumerate(function.ops)}
    assert (by_name["before"], by_name["after"]) == ("engine", "engine")
    tried = [op for op in function.ops if op.type == op_type and op.name not in ("before", "after")]
    assert [by_name[op.name] for op in tried] == ["cpu"]
    assert [run.unit for run in placement.runs] == ["engine", "cpu", "engine"]
    assert [(c.source, c.reader) for c in placement.crossings] == [(0, 1), (1, 2)]
    product = 64 * 64 * 64
    shares = {"NE13c": 2 / 3, "NE15": 2 / 3}
    sums = function.sums["cpuAndNeuralEngine"]
    assert sums.share("macs") == pytest.approx(shares.get(rule, 1.0))
    assert sum(sums.macs.values()) == product * (3 if rule in shares else 2)


def test_fp32_at_the_border_is_converted_on_the_cpu(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        y = mb.conv(x=mb.cast(x=x, dtype="fp16", name="in"), weight=dense(64, 64, 1, 1))
        return mb.cast(x=y, dtype="fp32", name="out")

    path = program(body, {"x": ((1, 64, 1, 64), "float32")})(tmp_path)
    (function,) = placed(path, "NE05c", None, {}).functions
    assert function.placements["all"].units == ("cpu", "engine", "cpu")
    assert moved(placed(path, "NE05c", None, {}), "NE05c") == [("cast", "cpu"), ("cast", "cpu")]


def test_a_state_of_two_functions_moves_both(tmp_path: Path) -> None:
    def body(x: Any, s: Any) -> Any:
        return mb.add(x=x, y=mb.reduce_sum(x=mb.read_state(input=s), axes=[-1], keep_dims=True))

    bodies = {"main": body, "other": body}
    path = program(bodies, None, {"s": ((1, 4, 1, 33), "float16")})(tmp_path)  # type: ignore[arg-type]
    found = placed(path, "NE21a", None, {})
    assert len(found.functions) == 2
    assert all("engine" not in f.placements["all"].units for f in found.functions)


# ---- small programs, settings, targets -----------------------------------------------------------------------------


def test_small_programs_and_small_parts_go_to_the_cpu(tmp_path: Path) -> None:
    product = 64 * 64 * 64
    path = program(lambda x: mb.conv(x=x, weight=dense(64, 64, 1, 1)), WIDE)(tmp_path)
    for least, unit in ((product, "engine"), (product + 1, "cpu")):
        (function,) = placed(path, "NE25", None, {"least_work": least}).functions
        assert function.placements["cpuAndNeuralEngine"].units == (unit,)
        assert function.placements["cpuAndGPU"].units == ("gpu" if unit == "engine" else "cpu",)
    assert moved(placed(path, "NE25", None, {"least_work": product + 1}), "NE25") == [("conv", "cpu")]

    (tmp_path / "parts").mkdir()
    small = lambda y: mb.mod(x=mb.tanh(x=mb.mod(x=y, y=np.float16(3)), name="small"), y=np.float16(3))  # noqa: E731
    path = between(small)(tmp_path / "parts")
    for least, runs in ((4096, 5), (4097, 3)):
        (function,) = placed(path, "NE25", None, {"least_work": least}).functions
        assert len(function.placements["cpuAndNeuralEngine"].runs) == runs


def test_a_small_part_goes_where_its_neighbours_are(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        wide = mb.conv(x=x, weight=dense(64, 64, 1, 1), dilations=[1, 5], name="before")
        small = mb.tanh(x=wide, name="small")
        return mb.conv(x=small, weight=dense(64, 64, 1, 1), dilations=[1, 5], name="after")

    (function,) = placed(program(body, WIDE)(tmp_path), "NE13c", None, {}, least_work=100_000).functions
    assert function.placements["all"].units == ("gpu", "gpu", "gpu")
    assert function.placements["cpuAndNeuralEngine"].units == ("cpu", "cpu", "cpu")
    assert [r.rule.id for r in function.placements["all"].reasons(1)] == ["NE25"]


def test_what_only_moves_values_of_the_cpu_is_there_too(tmp_path: Path) -> None:
    def body(x: Any) -> list[Any]:
        slots = mb.reshape(x=np.arange(64, dtype=np.int32), shape=[64, 1], name="slots")  # of constants alone
        seen = mb.cast(x=mb.less(x=slots, y=np.int32([[7]])), dtype="fp16", name="seen")
        rest = mb.mod(x=mb.conv(x=x, weight=dense(64, 64, 1, 1), name="conv"), y=np.float16(3))
        turned = mb.reshape(x=mb.transpose(x=rest, perm=[0, 3, 2, 1], name="t1"), shape=[1, 4096], name="t2")
        return [mb.mul(x=mb.conv(x=x, weight=dense(64, 64, 1, 1), name="more"), y=seen, name="both"), turned]

    (function,) = placed(program(body, WIDE)(tmp_path), "NE12a", None, {}, least_work=1000).functions
    placement = function.placements["cpuAndNeuralEngine"]
    units = {op.name: placement.units[i] for i, op in enumerate(function.ops)}
    assert {units[n] for n in ("slots", "t1", "t2")} == {"cpu"}
    assert {units[n] for n in ("seen", "conv", "more", "both")} == {"engine"}
    assert [run.unit for run in placement.runs] == ["cpu", "engine", "cpu"]


@pytest.mark.parametrize(
    ("setting", "units"),
    [
        ("all", {"engine", "gpu"}),
        ("cpuAndNeuralEngine", {"engine", "cpu"}),
        ("cpuAndGPU", {"gpu"}),
        ("cpuOnly", {"cpu"}),
    ],
)
def test_settings(setting: str, units: set[str], tmp_path: Path) -> None:
    (function,) = placed(between(MIDDLES["NE05a"][0])(tmp_path), "NE05a", None, {}).functions
    assert set(function.placements) == set(SETTINGS)
    placement = function.placements[setting]
    assert set(placement.units) == units
    assert bool(placement.crossings) is (len(units) > 1)
    assert any(map(placement.reasons, range(len(function.ops)))) is ("engine" in units)


def test_a_device_without_an_engine_has_none(tmp_path: Path) -> None:
    path = between(MIDDLES["NE05a"][0])(tmp_path)
    found = forecast(open_package(path), replace(resolve_target("macOS15"), has_engine=False), RULES.values(), "all")
    (function,) = found.functions
    assert set(function.placements["all"].units) == {"gpu"}
    assert set(function.placements["cpuAndNeuralEngine"].units) == {"cpu"}
    assert "no Neural Engine" in " ".join(found.notes)


def test_what_the_target_refuses_is_said_first(tmp_path: Path) -> None:
    found = placed(program(lambda x: mb.relu(x=x))(tmp_path), "NE25", "iOS17", {"least_work": 0})
    assert "CM01" in {f.rule.id for f in found.refused}
    assert "generation is not known" in " ".join(found.notes)
    assert not placed(tmp_path / "model.mlpackage", "NE25", "iOS18", {"least_work": 0}).refused


def test_shapes_that_are_not_known_count_as_one(tmp_path: Path) -> None:
    make = edited(program(lambda x: mb.linear(x=x, weight=dense(16, 8)), {"x": ((4, 8), "float16")}), unknown_axis)
    (function,) = placed(make(tmp_path), "NE06", None, {}).functions
    assert function.sums["all"].macs["gpu"] == 4 * 16 * 8  # the result's type is still the builder's
    assert "engine" not in function.placements["all"].units


def test_weights_read_on_two_units_count_for_both(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        weight = mb.const(val=dense(64, 64, 1, 1), name="w")
        return mb.conv(x=mb.conv(x=x, weight=weight), weight=weight, dilations=[1, 5])

    (function,) = placed(program(body, WIDE)(tmp_path), "NE13c", None, {}).functions
    sums = function.sums["cpuAndNeuralEngine"]
    assert dict(sums.weight_bytes) == {"engine": 8192, "gpu": 0, "cpu": 8192}
    assert function.sums["cpuOnly"].weight_bytes["cpu"] == 8192
    assert sums.share("weight_bytes") == 0.5
    (tmp_path / "lut").mkdir()
    compressed = program(lambda x: mb.conv(x=x, weight=palette((64, 64, 1, 1))), WIDE)(tmp_path / "lut")
    (function,) = placed(compressed, "NE13c", None, {}).functions
    assert function.sums["all"].weight_bytes["engine"] == 64 * 64 // 2 + 16 * 2


def test_states_keep_their_order(tmp_path: Path) -> None:
    (function,) = placed(with_states(2, tokens=33)(tmp_path), "NE21c", None, {}).functions
    placement = function.placements["cpuAndNeuralEngine"]
    order = [function.ops[i].type for run in placement.runs for i in run.ops if function.ops[i].type.endswith("_state")]
    assert order.index("read_state") < order.index("write_state")
    assert [run.unit for run in placement.runs] == ["engine", "cpu", "engine"]
