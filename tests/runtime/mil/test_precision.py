"""Rounding to fp16 is exact, and the first op that overflows is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.errors import UsageError
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


def test_unknown_precision(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, lambda x: mb.relu(x=x), {"x": ((1,), "float16")}))
    with pytest.raises(UsageError, match="precision"):
        program.run({"x": [1]}, precision="bf16")
