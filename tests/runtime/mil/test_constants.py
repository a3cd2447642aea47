"""Which constants are kept, in which type, and of which only some rows are ever expanded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError

ROWS, COLUMNS = 8192, 64
RANDOM = np.random.default_rng(0)
CODES = RANDOM.integers(0, 256, (ROWS, COLUMNS)).astype(np.uint8)
NIBBLES = CODES % 16
DATA = CODES.astype(np.int8)
WEIGHT = normal((ROWS, COLUMNS)).astype(np.float16)
ONE_LUT, TWO_LUTS = normal((1, 1, 256, 1)).astype(np.float16), normal((2, 1, 256, 1), 1).astype(np.float16)
LUT_OF_COLUMNS, SMALL_LUT = normal((1, 2, 256, 1), 2).astype(np.float16), normal((1, 1, 16, 1), 3).astype(np.float16)
SCALE, OFFSET = (
    np.abs(normal((ROWS // 4, 2))).astype(np.float16),
    RANDOM.integers(-9, 9, (ROWS // 4, 2)).astype(np.int8),
)


def each(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A value for each block -> for each element, in fp32."""
    x = x.astype(np.float32)
    for axis, n in enumerate(shape):
        x = np.repeat(x, n // x.shape[axis], axis)
    return x


def table_of(lut: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The dense values, by numpy's plain indexing."""
    groups = each(np.arange(lut[..., 0, 0].size).reshape(lut.shape[:2]), codes.shape).astype(int)
    return lut.reshape(-1, lut.shape[2]).astype(np.float32)[groups, codes]


# name -> (how the table is made in the program, its values, whether rows can be expanded alone)
TABLES: dict[str, tuple[Callable[[], Any], np.ndarray, bool]] = {
    "fp16": (lambda: mb.const(val=WEIGHT), WEIGHT.astype(np.float32), True),
    "one palette": (lambda: mb.constexpr_lut_to_dense(indices=CODES, lut=ONE_LUT), table_of(ONE_LUT, CODES), True),
    "palettes of rows": (
        lambda: mb.constexpr_lut_to_dense(indices=CODES, lut=TWO_LUTS), table_of(TWO_LUTS, CODES), True,
    ),
    "palettes of columns": (
        lambda: mb.constexpr_lut_to_dense(indices=CODES, lut=LUT_OF_COLUMNS), table_of(LUT_OF_COLUMNS, CODES), True,
    ),
    "blocks": (
        lambda: mb.constexpr_blockwise_shift_scale(data=DATA, scale=SCALE, offset=OFFSET),
        (DATA.astype(np.float32) - each(OFFSET, DATA.shape)) * each(SCALE, DATA.shape), True,
    ),
    "packed codes": (
        lambda: mb.constexpr_lut_to_dense(indices=_as_uint4(NIBBLES), lut=SMALL_LUT),
        table_of(SMALL_LUT, NIBBLES), False,
    ),
}  # fmt: skip


def _as_uint4(codes: np.ndarray) -> np.ndarray:
    from coremltools.converters.mil.mil.types.type_mapping import np_uint4_dtype

    return codes.astype(np_uint4_dtype)


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gather_expands_the_rows_that_it_needs(name: str, precision: str, tmp_path: Path) -> None:
    make, want, alone = TABLES[name]
    program = mil.load(
        save(tmp_path, lambda i: mb.gather(x=make(), indices=i, axis=0, name="y"), {"i": ((2, 3), "int32")})
    )
    places = np.array([[0, ROWS - 1, 4097], [-1, -ROWS, 5]])
    if precision == "fp16":
        want = want.astype(np.float16)
        alone = alone and name != "blocks"  # the product is rounded, where overflow is looked for
    np.testing.assert_array_equal(program.run({"i": places}, precision=precision)["y"], want[places])
    template = program.executable(precision=precision).template
    assert any(isinstance(v, np.ndarray) and v.size == want.size for v in template) is not alone
    for wrong in (ROWS, -ROWS - 1):
        with pytest.raises(FormatError, match=r"gather 'y' in main.*IndexError.*index"):
            program.run({"i": np.full((2, 3), wrong)}, precision=precision)


SIDE = 256
FULL = SIDE * SIDE * 4  # bytes of one of the weights in fp32
REST = 8192  # for palettes and scales


def layers(x: Any) -> Any:
    """Three weights of values that fp16 holds, and one of products of two fp16 values, which it does not."""
    for i in range(3):
        codes = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
        x = mb.linear(x=x, weight=mb.constexpr_lut_to_dense(indices=codes, lut=ONE_LUT / np.float16(16)))
    data = np.random.default_rng(9).integers(-128, 128, (SIDE, SIDE)).astype(np.int8)
    scale = (np.abs(normal((SIDE, 1))) / 500).astype(np.float16)
    return mb.linear(x=x, weight=mb.constexpr_blockwise_shift_scale(data=data, scale=scale), name="y")


@pytest.mark.parametrize(
    ("limit", "full", "halves"),
    [
        (0, 0, 0), (FULL // 2 + REST, 0, 1), (FULL + REST, 0, 2), (2 * FULL + REST, 1, 2), (3 * FULL + REST, 2, 2),
        (4 * FULL + REST, 4, 0), (None, 4, 0),
    ],
)  # fmt: skip
def test_a_limit_keeps_what_it_can_and_changes_no_value(
    limit: int | None, full: int, halves: int, tmp_path: Path
) -> None:
    path, x = save(tmp_path, layers, {"x": ((1, SIDE), "float16")}), {"x": normal((1, SIDE), 5)}
    program = mil.load(path, limit, kernels="numpy")
    np.testing.assert_array_equal(program.run(x)["y"], mil.load(path, kernels="numpy").run(x)["y"])
    pool = program._pool
    assert limit is None or pool.used <= limit
    assert pool.used == sum(v.nbytes for v in (*pool._kept.values(), *pool._halves.values()))
    assert sum(v.size == SIDE * SIDE for v in pool._kept.values()) == full
    assert len(pool._halves) == halves


def test_onnxruntime_widens_weights_that_are_kept_in_fp16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from satchel.runtime.mil.regions import choose, products

    monkeypatch.setattr(choose, "WORTH", 0)
    monkeypatch.setattr(products, "WIDENED", 100 * SIDE)  # three parts, the last one shorter
    weights = [normal((SIDE, SIDE), i).astype(np.float16) / np.float16(16) for i in range(3)]
    bias = normal((SIDE,), 3).astype(np.float16)

    def build(x: Any) -> Any:
        x = mb.linear(x=mb.relu(x=x), weight=weights[0], bias=bias)
        x = mb.matmul(x=x, y=weights[1])
        x = mb.reshape(x=x, shape=[1, SIDE, 1, 2])
        return mb.conv(x=x, weight=mb.const(val=weights[2][:, :, None, None]), bias=bias, name="y")

    path, x = save(tmp_path, build, {"x": ((2, SIDE), "float16")}), {"x": normal((2, SIDE), 5)}
    program = mil.load(path, 2 * FULL + REST, threads=1)
    found = program.run(x)["y"]
    executable = program.executable(threads=1)
    assert [s.op for s in executable.steps] == ["onnxruntime"]
    assert len(program._pool._halves) + sum(v.size == SIDE * SIDE for v in program._pool._kept.values()) == 3
    assert len(program._pool._halves) == 2
    np.testing.assert_allclose(found, mil.load(path, kernels="numpy").run(x)["y"], rtol=1e-5, atol=1e-5)
