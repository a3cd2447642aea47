"""Programs walked side by side: the right op is named, whatever the conversion did to the rest."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, save
from torch import nn

from satchel.runtime import mil
from satchel.runtime.coreml.difference import Side, compare, lockstep
from satchel.runtime.coreml.difference_report import Report
from satchel.runtime.coreml.measures import measure
from satchel.runtime.coreml.sample_inputs import sample_inputs
from satchel.runtime.coreml.tolerances import tolerance
from satchel.runtime.coreml.trace import Visit, walk
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.metrics import sqnr
from satchel.runtime.mil.graph import Node, graph

logging.getLogger("coremltools").setLevel(logging.ERROR)
LAYERS, WIDTH = 8, 32


def blocks(changed: int | None = None, epsilon: float = 1e-5, dtype: type = np.float32) -> Callable[[mb.Var], mb.Var]:
    """Eight blocks of norm, linear, gelu, linear and a sum; one weight of block `changed` is off by a little."""

    def build(x: mb.Var) -> mb.Var:
        for i in range(LAYERS):
            up, down = normal((2 * WIDTH, WIDTH), i, 0.2), normal((WIDTH, 2 * WIDTH), i + 100, 0.2)
            if i == changed:
                down[3, 5] += 0.01
            used = epsilon if i == 2 else 1e-5
            h = mb.layer_norm(x=x, axes=[-1], epsilon=dtype(used), name=f"norm{'abcdefgh'[i]}")
            h = mb.gelu(x=mb.linear(x=h, weight=up.astype(dtype)), mode="TANH_APPROXIMATION")
            x = mb.add(x=x, y=mb.linear(x=h, weight=down.astype(dtype), name=f"down{'abcdefgh'[i]}"))
        return x

    return build


SHAPE = {"x": ((1, 4, WIDTH), "float32")}


def compared(a: Path, b: Path | None = None, precisions: tuple[str, str] = ("fp32", "fp32"), **options: Any) -> Report:
    first = mil.load(a)
    second = mil.load(b) if b else first
    sides = [Side(p, "", None, precision) for p, precision in zip((first, second), precisions, strict=True)]
    return compare(*sides, sample_inputs(first.package), **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("plain"), blocks(), SHAPE)


@pytest.mark.parametrize("layer", [0, 5, 7])
def test_one_element_of_one_weight_is_found(plain: Path, tmp_path: Path, layer: int) -> None:
    report = compared(plain, save(tmp_path, blocks(layer), SHAPE))
    assert report.first and not report.equal
    assert (report.first.a.op, report.first.a.name) == ("linear", f"down{'abcdefgh'[layer]}")
    assert str(report.first.layer) == f"layer {layer} of 8 (counted from 0)"
    assert report.clues[0] == "input 0 [1, 4, 64] is the same"
    assert "input 1 [32, 64] differs" in report.clues[1]
    assert len(report.rows) == LAYERS * 5 and report.only == (0, 0)
    assert all(row.measure.error == 0 for row in report.rows[: report.first.a.index])
    assert report.worst(3)[0].departs and set(report.to_json(2)) >= {"first", "worst", "outputs", "clues"}


def test_a_setting_that_differs_is_named(plain: Path, tmp_path: Path) -> None:
    report = compared(plain, save(tmp_path, blocks(epsilon=0.1), SHAPE))
    assert report.first and report.first.a.name == "normc"
    assert any(clue.startswith("epsilon is 9.99") and clue.endswith("0.10000000149011612") for clue in report.clues)


def test_a_program_equals_itself_and_a_limit_of_the_users_holds(plain: Path, tmp_path: Path) -> None:
    same = compared(plain, plain)
    assert same.equal and max(row.measure.error for row in same.rows) == 0
    changed = save(tmp_path, blocks(5), SHAPE)
    assert compared(plain, changed, limit=0.5).equal
    strict = compared(plain, changed, limit=0.0)
    assert strict.first and strict.first.allowed.reason == "as given"


class Net(nn.Module):
    """Convolutions with batch norms, which passes fold, then layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU()) for _ in range(4)
        )
        self.head = nn.Linear(16, 64)
        for layer in self.layers:
            nn.init.uniform_(layer[1].weight, 0.5, 1.5)  # type: ignore[index]
            nn.init.uniform_(layer[1].running_var, 0.5, 1.5)  # type: ignore[index]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean((2, 3)))


def converted(precision: Any = ct.precision.FLOAT32, passes: Any = None) -> Any:
    traced = torch.jit.trace(Net().eval(), torch.zeros(1, 16, 8, 8))
    return ct.convert(
        traced, inputs=[ct.TensorType("x", (1, 16, 8, 8), np.float32)], convert_to="mlprogram", skip_model_load=True,
        minimum_deployment_target=ct.target.iOS18, compute_precision=precision,
        pass_pipeline=passes or ct.PassPipeline.DEFAULT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network, converted by coremltools in several ways."""
    folder = tmp_path_factory.mktemp("net")
    pipeline = ct.PassPipeline.DEFAULT
    pipeline.remove_passes({"common::fuse_conv_batchnorm", "common::fuse_gelu_exact"})
    config = ct.optimize.coreml.OptimizationConfig(
        ct.optimize.coreml.OpPalettizerConfig("kmeans", nbits=4, weight_threshold=512)
    )
    models = {"plain": converted(), "fp16": converted(ct.precision.FLOAT16), "unfused": converted(passes=pipeline)}
    models["palettized"] = ct.optimize.coreml.palettize_weights(models["plain"], config)
    for name, model in models.items():
        model.save(str(folder / f"{name}.mlpackage"))
    return {name: folder / f"{name}.mlpackage" for name in models}


def test_palettized_against_plain(conversions: dict[str, Path]) -> None:
    report = compared(conversions["plain"], conversions["palettized"])
    assert report.first and report.first.a.op == "conv" and report.first.a.index == 0
    assert 0.01 < report.first.measure.error < 0.5
    assert "input 0 [1, 16, 8, 8] is the same" in report.clues
    assert report.only == (0, 0) and len(report.rows) == len(graph(mil.load(conversions["plain"]).package).nodes)
    layers = {row.layer.number for row in report.rows if row.layer}
    assert layers == {0, 1, 2, 3} and report.rows[-1].layer is None
    assert compared(conversions["plain"], conversions["palettized"], limit=1.0).equal


def test_types_and_passes_of_a_conversion_agree(conversions: dict[str, Path]) -> None:
    """The fp16 package has casts, the unfused one batch norms and a gelu in parts; no op departs for that."""
    ops = {n: [node.op for node in graph(mil.load(p).package).nodes] for n, p in conversions.items()}
    assert "batch_norm" in ops["unfused"] and "batch_norm" not in ops["plain"] and "cast" in ops["fp16"]
    for precision in ("fp32", "fp16"):
        report = compared(conversions["plain"], conversions["fp16"], ("fp32", precision))
        assert report.equal and len(report.rows) == len(ops["plain"])
        assert max(row.measure.error for row in report.rows) > 1e-4
    unfused = compared(conversions["plain"], conversions["unfused"])
    assert [o.measure.error < 1e-5 for o in unfused.outputs] == [True]
    common = [op for op in ops["plain"] if op not in ("conv", "gelu")]
    assert len([r for r in unfused.rows if r.a.op not in ("conv", "gelu")]) == len(common)


def test_fp16_against_fp32_of_one_package(plain: Path, tmp_path: Path) -> None:
    halves = save(tmp_path, blocks(dtype=np.float16), {"x": ((1, 4, WIDTH), "float16")})
    report = compared(halves, precisions=("fp32", "fp16"))
    assert report.equal and report.overflows == (None, None)
    assert 2.0**-13 < max(row.measure.error for row in report.rows) < 0.02

    def large(x: mb.Var) -> mb.Var:
        return mb.reduce_mean(x=mb.square(x=mb.mul(x=x, y=np.float16(500)), name="square"), axes=[-1])

    over = compared(save(tmp_path, large, {"x": ((1, 64), "float16")}, name="large"), precisions=("fp32", "fp16"))
    assert over.first and over.first.a.name == "square" and "not finite" in over.first.measure.note
    assert over.overflows[0] is None and over.overflows[1] and over.overflows[1].name == "square"


def test_outputs_are_compared_whether_their_ops_have_partners_or_not(tmp_path: Path) -> None:
    def one(x: mb.Var) -> list[mb.Var]:
        return [mb.identity(x=mb.square(x=x), name="y"), mb.relu(x=x, name="z")]

    def same(x: mb.Var) -> list[mb.Var]:
        return [mb.mul(x=x, y=x, name="y"), mb.relu(x=x, name="z")]

    def other(x: mb.Var) -> list[mb.Var]:
        return [mb.tanh(x=x, name="y"), mb.relu(x=x, name="z")]

    a, b, c = (save(tmp_path, build, {"x": ((8,), "float32")}, name=build.__name__) for build in (one, same, other))
    equal, unequal = compared(a, b), compared(a, c)
    assert equal.equal and [(o.name, o.departs) for o in equal.outputs] == [("y", False), ("z", False)]
    assert not unequal.equal and [o.departs for o in unequal.outputs] == [True, False]
    assert unequal.to_json()["outputs"][0]["departs"]


# --- walking ---


def loop(x: mb.Var, n: mb.Var) -> mb.Var:
    """Doubles and adds one n times."""

    def go_on(i: mb.Var, y: mb.Var) -> mb.Var:
        return mb.less(x=i, y=mb.squeeze(x=n, axes=[0]))

    def body(i: mb.Var, y: mb.Var) -> tuple[mb.Var, mb.Var]:
        return mb.add(x=i, y=np.int32(1)), mb.add(x=mb.mul(x=y, y=2.0, name="double"), y=1.0, name="one_more")

    return mb.identity(x=mb.while_loop(_cond=go_on, _body=body, loop_vars=(np.int32(0), x))[1], name="y")


def test_loops_are_walked_and_compared_round_by_round(tmp_path: Path) -> None:
    specs = {"x": ((3,), "float32"), "n": ((1,), "int32")}
    program = mil.load(save(tmp_path, loop, specs))
    executable = program.executable()
    inputs = {"x": np.array([1.0, 2.0, 3.0], np.float32), "n": np.array([4], np.int32)}
    seen: list[np.ndarray] = []
    walked = walk(executable, inputs)
    try:
        while True:
            visit = next(walked)
            if visit.step.name == "double":
                seen.append(visit.results[0].copy())
    except StopIteration as end:
        outputs = end.value
    np.testing.assert_array_equal(outputs["y"], program.run(inputs)["y"])
    assert [float(v[0]) for v in seen] == [2, 6, 14, 30]
    side = Side(program, "loop")
    assert compare(side, side, inputs).equal
    shorter = compare(side, side, inputs, inputs | {"n": np.array([2], np.int32)})
    errors = {row.a.name: row.measure.error for row in shorter.rows}
    assert errors["double"] == errors["one_more"] == 0  # the two rounds that both run
    assert errors["y"] > 0.5


def test_states_are_walked_before_they_are_overwritten(tmp_path: Path) -> None:
    def grow(x: mb.Var, s: mb.Var) -> mb.Var:
        old = mb.read_state(input=s)
        new = mb.slice_update(x=old, update=x, begin=[1, 0], end=[2, 4])
        mb.coreml_update_state(state=s, value=new)
        return mb.reduce_sum(x=mb.mul(x=new, y=np.float16(2)), axes=[0], name="y")

    path = save(tmp_path, grow, {"x": ((1, 4), "float16")}, {"s": ((3, 4), "float16")})
    program = mil.load(path)
    inputs, state, plain_state = {"x": normal((1, 4))}, program.make_state(), program.make_state()
    values = [[np.array(r) for r in v.results] for v in walk(program.executable(), inputs, state)]
    assert (values[0][0] == 0).all()
    program.run(inputs, state=plain_state)
    np.testing.assert_array_equal(state.arrays["s"], plain_state.arrays["s"])
    report = compare(Side(program, "a"), Side(program, "b"), inputs)
    assert report.equal and report.only == (0, 0)


def test_a_walk_that_is_left_ends_its_thread_and_errors_come_through(plain: Path, tmp_path: Path) -> None:
    program, before = mil.load(plain), threading.active_count()
    walked = walk(program.executable(), sample_inputs(program.package))
    assert isinstance(next(walked), Visit)
    walked.close()
    with pytest.raises(UsageError, match="inputs"):
        next(walk(program.executable(), {}))
    assert threading.active_count() == before
    bad = save(tmp_path, lambda x, i: mb.gather(x=x, indices=i), {"x": ((4,), "float32"), "i": ((1,), "int32")})
    with pytest.raises(FormatError, match="gather"):
        list(walk(mil.load(bad).executable(), {"x": normal((4,)), "i": np.array([99])}))
    assert threading.active_count() == before


class Value:
    """What a walk gives."""

    def __init__(self, key: str, value: float) -> None:
        self.key, self.operands, self.results = key, (), (np.array([value]),)


def test_lockstep_holds_copies_of_what_comes_early_alone() -> None:
    a, b = [Value(k, 1) for k in "pqrst"], [Value(k, 2) for k in "rpqts"]
    pairs = lockstep(iter(a), iter(b), {k: k for k in "pqrs"} | {"t": "absent"})
    found = []
    for x, y in pairs:
        found.append((x.key, y.key, y is b["rpqts".index(y.key)]))
        b[0].results[0][0] = -1  # overwritten as the walk goes on
        assert y.results[0][0] == 2
    assert found == [("p", "p", True), ("q", "q", True), ("r", "r", False), ("s", "s", True)]


# --- measuring ---


@given(st.integers(0, 10**6), st.floats(-6, 1), st.sampled_from([(7,), (3, 5), (2, 3, 33)]))
@settings(max_examples=50, deadline=None)
def test_measures_are_what_their_formulas_say(seed: int, power: float, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(seed)
    a = random.standard_normal(shape).astype(np.float32)
    b = (a + 10**power * random.standard_normal(shape)).astype(np.float32)
    m, difference = measure(a, b), a.astype(np.float64) - b
    assert m.sqnr == pytest.approx(sqnr(a, b), abs=1e-3)
    peak_to_noise = 10 * np.log10(np.square(a.astype(np.float64)).max() / np.mean(difference**2))
    assert m.psnr == pytest.approx(peak_to_noise, abs=1e-3)
    assert m.largest == pytest.approx(np.abs(difference).max(), rel=1e-5)
    assert m.peak == pytest.approx(np.abs(a).max(), rel=1e-6)
    by_rms = np.linalg.norm(difference) / np.linalg.norm(a.astype(np.float64))
    assert m.error == pytest.approx(max(by_rms, np.abs(difference).max() / np.abs(a).max()), rel=1e-4)


def test_measures_of_what_is_no_plain_number() -> None:
    inf, nan = np.float32(np.inf), np.float32(np.nan)
    x = np.array([1, -inf, nan, 3], np.float32)
    assert measure(x, x.copy()).error == 0
    assert measure(x, np.array([1, -inf, nan, 3.3], np.float32)).error == pytest.approx(0.1)
    for wrong in ([1, inf, nan, 3], [1, -inf, 2, 3], [nan, -inf, nan, 3]):
        m = measure(x, np.array(wrong, np.float32))
        assert m.error == np.inf and m.differing == 1 and "not finite" in m.note
    assert measure(np.array([1, 2, 3]), np.array([1, 2, 4])).error == pytest.approx(1 / 3)
    assert measure(np.zeros((1, 3, 1)), np.zeros(3)).error == 0
    assert "shape" in measure(np.zeros((2, 3)), np.zeros((3, 2))).note
    assert measure("cat", "dog").error == 1 and measure("cat", "cat").error == 0
    assert measure({"cat": 0.5, "dog": 0.5}, {"dog": 0.5, "cat": 0.25}).error == pytest.approx(0.5)
    large = np.full(4, 60000, np.float16)
    assert measure(large, -large).error == 2  # not computed in fp16
    assert measure([np.ones(2)], [np.ones(2), np.ones(2)]).error == np.inf
    huge = np.array([1e30, 1], np.float32)
    assert measure(huge, huge * np.float32(1.5)).error == pytest.approx(0.5)
    assert measure(np.zeros(3, np.float32), np.full(3, 1e-9, np.float32), terms=1e-5).error == pytest.approx(1e-4)


def test_tolerances_by_type_and_depth() -> None:
    def node(roundoff: float, depth: int) -> Node:
        return Node(0, "add", "x", ("x",), "", (1,), (), (), {}, depth, roundoff)

    assert tolerance(node(2.0**-24, 1), node(2.0**-24, 4)).value == 16 * 2.0**-24
    assert tolerance(node(2.0**-24, 9), node(2.0**-11, 1)).value == 24 * 2.0**-11
    assert "float16" in tolerance(node(2.0**-24, 9), node(2.0**-11, 1)).reason
    assert tolerance(node(2.0**-11, 10**6), node(2.0**-11, 1)).value == 0.5
    assert tolerance(node(0, 5), node(0, 5), 0.1).value == 0


def test_the_coarsest_type_before_an_op_counts(tmp_path: Path) -> None:
    """Also after a cast to fp32, in a decision made from it, in a state, and round a loop."""

    def build(x: mb.Var, n: mb.Var, s: mb.Var) -> list[mb.Var]:
        def body(i: mb.Var, y: mb.Var) -> tuple[mb.Var, mb.Var]:
            half = mb.cast(x=mb.tanh(x=y), dtype="fp16", name="half")
            return mb.add(x=i, y=np.int32(1), name="count"), mb.cast(x=half, dtype="fp32")

        mb.coreml_update_state(state=s, value=mb.cast(x=x, dtype="fp16", name="rounded"))
        plain = mb.exp(x=x, name="plain")
        looped = mb.while_loop(
            _cond=lambda i, y: mb.less(x=i, y=np.int32(2)), _body=body, loop_vars=(np.int32(0), plain)
        )
        wide = mb.cast(x=mb.cast(x=plain, dtype="fp16"), dtype="fp32", name="wide")
        largest = mb.reduce_argmax(x=wide, axis=0, name="largest")
        return [mb.add(x=n, y=n, name="whole"), looped[1], largest, mb.read_state(input=s, name="again")]

    specs = {"x": ((4,), "float32"), "n": ((1,), "int32")}
    found = graph(mil.load(save(tmp_path, build, specs, {"s": ((4,), "float16")})).package)
    units = {node.name: node.roundoff for node in found.nodes}
    assert (units["plain"], units["whole"]) == (2.0**-24, 0)
    for name in ("rounded", "half", "wide", "largest", "again", "tanh_0", "while_loop_0"):
        assert units.get(name, 2.0**-11) == 2.0**-11, name
    inside = next(node for node in found.nodes if node.op == "tanh")
    assert inside.roundoff == 2.0**-11 and inside.depth > 1
    assert next(node for node in found.nodes if node.op == "write_state").roundoff == 2.0**-11
    assert next(node for node in found.nodes if node.op == "while_loop").roundoff == 2.0**-11


def test_sampled_inputs_are_what_the_program_can_take(tmp_path: Path) -> None:
    def embed(ids: mb.Var, position: mb.Var, mask: mb.Var) -> mb.Var:
        rows = mb.gather(x=normal((50, 4)), indices=mb.cast(x=mb.expand_dims(x=ids, axes=[0]), dtype="int32"), axis=0)
        shifted = mb.add(x=mb.cast(x=mb.add(x=mask, y=position), dtype="fp32"), y=rows)
        return mb.reduce_mean(x=shifted, axes=[0])

    specs = {"ids": ((64, 4), "int32"), "position": ((1,), "int32"), "mask": ((4,), "int32")}
    package = mil.load(save(tmp_path, embed, specs)).package
    inputs = sample_inputs(package, seed=3)
    assert inputs["ids"].min() >= 0 and 40 < inputs["ids"].max() < 50
    assert inputs["position"].tolist() == [0] and inputs["mask"].tolist() == [1] * 4
    assert all((inputs[n] == v).all() for n, v in sample_inputs(package, seed=3).items())
    assert (inputs["ids"] != sample_inputs(package, seed=4)["ids"]).any()
