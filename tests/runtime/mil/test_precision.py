"""Rounding to fp16 is exact, and the first op that overflows is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mil_programs import mb, normal, save

from satchel.devices.rulebook import load_rules
from satchel.runtime import mil
from satchel.runtime.errors import UsageError
from satchel.runtime.mil import remedies
from satchel.runtime.mil.precision import FEW, round_fp16


def test_rounding_equals_a_cast_everywhere_it_could_differ() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = halves[np.isfinite(halves)]
    ordered = np.unique(finite)  # of float32: sorting fp16 is not reliable everywhere
    middle = (ordered[1:] + ordered[:-1]) / 2
    values = np.concatenate(
        [finite, middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf), normal((9999,), 0, 1e-6)]
    ).astype(np.float32)
    assert values.size > FEW
    np.testing.assert_array_equal(round_fp16(values), values.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(round_fp16(values[:100]), values[:100].astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("size", [10, 2 * FEW])
def test_rounding_beyond_fp16_gives_infinity_and_keeps_nan(size: int) -> None:
    x = np.zeros(size, np.float32)
    x[:6] = [65519.9, 65520, -70000, np.inf, np.nan, 65504]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(round_fp16(x)[:6], [65504, np.inf, -np.inf, np.inf, np.nan, 65504])
    strided = normal((64, 64))[:, ::2]
    np.testing.assert_array_equal(round_fp16(strided), strided.astype(np.float16))


def norm(x: mb.Var, name: str) -> mb.Var:
    """A naive RMSNorm: it squares what may be large."""
    mean = mb.reduce_mean(x=mb.square(x=x, name=f"{name}_square"), axes=[-1], keep_dims=True)
    return mb.mul(x=x, y=mb.rsqrt(x=mean), name=name)


def test_the_first_overflow_is_named(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, lambda x: norm(mb.mul(x=x, y=np.float16(2)), "norm"), {"x": ((1, 8), "float16")}))
    quiet, watch = mil.Watch(), mil.Watch()
    program.run({"x": np.full((1, 8), 100)}, precision="fp16", watch=quiet)
    assert quiet.report is None
    found = program.run({"x": np.full((1, 8), 12448)}, precision="fp16", watch=watch)
    assert watch.report
    assert replace(watch.report, remedy="") == mil.OverflowReport(
        "main", "square", "norm_square", "overflow", 24896.0, 8
    )
    assert "before it is squared" in watch.report.remedy
    assert "square 'norm_square' in main overflows fp16 in 8 elements" in str(watch.report)
    assert (found["norm"] == 0).all()  # what a device would quietly give
    np.testing.assert_allclose(program.run({"x": np.full((1, 8), 12448)})["norm"], 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "kind", "op"),
    [
        (lambda x: mb.matmul(x=x, y=x, transpose_y=True, name="op"), "overflow", "matmul"),
        (lambda x: mb.sub(x=mb.mul(x=x, y=np.float16(np.inf)), y=np.float16(np.inf), name="op"), "nan", "sub"),
        (lambda x: mb.log(x=mb.mul(x=x, y=np.float16(-1)), epsilon=np.float16(0), name="op"), "nan", "log"),
        (lambda x: mb.real_div(x=x, y=np.float16(0), name="op"), "overflow", "real_div"),
        (lambda x: mb.exp(x=x, name="op"), "overflow", "exp"),
    ],
)
def test_kinds_of_failure(tmp_path: Path, build: object, kind: str, op: str) -> None:
    program = mil.load(save(tmp_path, build, {"x": ((1, 8), "float16")}))  # type: ignore[arg-type]
    watch = mil.Watch()
    program.run({"x": np.full((1, 8), 200)}, precision="fp16", watch=watch)
    assert watch.report
    assert (watch.report.kind, watch.report.op, watch.report.name) == (kind, op, "op")


def test_masks_of_infinity_and_overflow_inside_an_op_are_no_overflow(tmp_path: Path) -> None:
    mask = np.array([[0, -np.inf, 0, -np.inf]], np.float16)

    def build(x: mb.Var) -> list[mb.Var]:
        return [mb.softmax(x=mb.add(x=x, y=mask), axis=-1), mb.sigmoid(x=x), mb.silu(x=x), mb.softplus(x=x)]

    program = mil.load(save(tmp_path, build, {"x": ((1, 4), "float16")}))
    watch = mil.Watch()
    found = program.run({"x": np.array([[-60000, 5, 60000, 1]])}, precision="fp16", watch=watch)
    assert watch.report is None
    assert all(np.isfinite(v).all() for v in found.values())


def ran(tmp_path: Path, build: object, value: float, dtype: str = "float16", **options: object) -> mil.OverflowReport:
    """The report of a run in fp16 on one row that is `value` everywhere."""
    program = mil.load(save(tmp_path, build, {"x": ((1, 8), dtype)}, **options))  # type: ignore[arg-type]
    watch = mil.Watch()
    program.run({"x": np.full((1, 8), value, np.float32)}, precision="fp16", watch=watch)
    assert watch.report
    return watch.report


HALF = np.float16


@pytest.mark.parametrize(
    ("build", "value", "op", "says"),
    [
        (lambda x: mb.mul(x=x, y=x), 300, "mul", "before it is squared"),
        (lambda x: mb.reduce_sum_square(x=x, axes=[1]), 300, "reduce_sum_square", "rules 10 and 24"),
        (lambda x: mb.pow(x=x, y=HALF(3)), 100, "pow", "before it is squared"),
        (lambda x: mb.mul(x=x, y=HALF(300)), 300, "mul", "up_proj"),
        (lambda x: mb.add(x=x, y=HALF(60000)), 30000, "add", "residual stream"),
        (lambda x: mb.softmax(x=mb.add(x=x, y=HALF(-65504))), -1000, "add", "rule 8"),
        (
            lambda x: mb.softmax(x=mb.mul(x=mb.matmul(x=x, y=x, transpose_y=True), y=HALF(0.125))),
            200, "matmul", "queries by 1 / sqrt(head_dim)",
        ),
        (lambda x: mb.linear(x=x, weight=np.ones((4, 8), HALF)), 20000, "linear", "Scale the weight down"),
        (lambda x: mb.reduce_sum(x=x, axes=[1]), 20000, "reduce_sum", "mean instead"),
        (lambda x: mb.cast(x=mb.cast(x=x, dtype="fp32"), dtype="fp16"), 70000, "input", "smaller units"),
        (lambda x: mb.rsqrt(x=mb.sub(x=x, y=x), epsilon=HALF(0)), 3, "rsqrt", "divisor reached 0"),
        (lambda x: mb.exp(x=x), 12, "exp", "11.09"),
    ],
)  # fmt: skip
def test_what_helps(tmp_path: Path, build: object, value: float, op: str, says: str) -> None:
    report = ran(tmp_path, build, value)
    assert (report.op, report.kind) == (op, "overflow")
    assert says in report.remedy
    assert report.to_json()["remedy"] == report.remedy


def test_a_cast_overflows_but_fp32_values_before_it_do_not(tmp_path: Path) -> None:
    report = ran(tmp_path, lambda x: mb.cast(x=mb.mul(x=x, y=x), dtype="fp16"), 300, "float32")
    assert (report.op, report.largest_input) == ("cast", 90000.0)
    assert "keep this part in fp32" in report.remedy


def test_nan_of_masks(tmp_path: Path) -> None:
    row = np.full((1, 8), -np.inf, HALF)
    masked = ran(tmp_path, lambda x: mb.softmax(x=mb.add(x=x, y=row), axis=-1), 1)
    assert (masked.op, masked.kind, masked.count) == ("softmax", "nan", 8) and "rule 8" in masked.remedy
    (tmp_path / "product").mkdir()
    product = ran(tmp_path / "product", lambda x: mb.mul(x=mb.sub(x=x, y=HALF(1)), y=row), 1)
    assert (product.op, product.kind) == ("mul", "nan") and "-1e4" in product.remedy


@pytest.mark.parametrize("memory", [None, 0])
def test_a_compressed_constant_beyond_fp16_comes_before_every_op(tmp_path: Path, memory: int | None) -> None:
    def build(x: mb.Var) -> mb.Var:
        data, scale = np.full((4, 8), 100, np.int8), np.full((4, 1), 1000, HALF)
        weight = mb.constexpr_blockwise_shift_scale(data=data, scale=scale, name="blocks_1_w")
        other = mb.constexpr_blockwise_shift_scale(data=data, scale=scale / HALF(1000), name="blocks_0_w")
        return mb.matmul(x=x, y=mb.add(x=weight, y=other), transpose_y=True)

    program = mil.load(save(tmp_path, build, {"x": ((1, 8), "float16")}), max_memory=memory)
    for _ in range(2):
        watch = mil.Watch()
        program.run({"x": np.ones((1, 8))}, precision="fp16", watch=watch)
        assert watch.report and watch.report.op == "constexpr_blockwise_shift_scale"
        assert (watch.report.name, watch.report.count, watch.report.function) == ("blocks_1_w", 32, "main")
        assert watch.report.largest_input == 100000 and "compress it again" in watch.report.remedy


def test_the_layer_of_an_overflow(tmp_path: Path) -> None:
    """Each of six blocks doubles; in the fourth, numbered 3, the squares of its norm pass 65504."""

    def build(x: mb.Var) -> mb.Var:
        for i in range(6):
            weight = mb.const(val=2 * np.eye(8, dtype=HALF), name=f"model_layers_{i}_mlp_weight")
            x = mb.add(x=mb.linear(x=norm(x, f"norm{'abcdef'[i]}"), weight=weight), y=mb.mul(x=x, y=HALF(2)))
        return x

    report = ran(tmp_path, build, 40)
    assert report.name == "normd_square"
    assert "in main, layer 3 of 6 (counted from 0), overflows fp16 in 8 elements" in str(report)


def test_subnormals_are_kept_and_products_accumulated_in_fp32(tmp_path: Path) -> None:
    """In fp16 2048 + 1 is 2048, so that a sum of ones kept in fp16 would end there; 2**-24 is its smallest number."""
    small = np.full((1, 8), 2.0**-12, np.float32)
    ones = np.ones((1, 4096), HALF)

    def build(x: mb.Var) -> list[mb.Var]:
        sums = mb.linear(x=mb.tile(x=mb.mul(x=x, y=HALF(2**12)), reps=[1, 512]), weight=ones)
        return [mb.mul(x=x, y=HALF(2.0**-12)), mb.mul(x=x, y=HALF(2.0**-14)), sums]

    program = mil.load(save(tmp_path, build, {"x": ((1, 8), "float16")}))
    tiny, gone, sums = program.run({"x": small}, precision="fp16").values()
    assert (tiny == 2.0**-24).all() and (gone == 0).all() and sums.item() == 4096


def test_remedies_name_rules_that_there_are() -> None:
    known = {rule.id[:4] for rule in load_rules("neural-engine")}
    found = [r for r in vars(remedies).values() if isinstance(r, remedies.Remedy)]
    assert len(found) > 12
    for one in found:
        assert all(f"NE{number:02}" in known for number in one.rules), one


def test_unknown_precision(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, lambda x: mb.relu(x=x), {"x": ((1,), "float16")}))
    with pytest.raises(UsageError, match="precision"):
        program.run({"x": [1]}, precision="bf16")
