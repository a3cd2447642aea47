"""Ops on each element, against torch and coremltools' value inference, over random shapes that broadcast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mil_programs import ct, inferred, mb, normal, outputs

UNARY = {
    "abs": torch.abs,
    "acos": torch.acos,
    "asin": torch.asin,
    "atan": torch.atan,
    "atanh": torch.atanh,
    "ceil": torch.ceil,
    "cos": torch.cos,
    "cosh": torch.cosh,
    "erf": torch.erf,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "floor": torch.floor,
    "round": torch.round,
    "sign": torch.sign,
    "sin": torch.sin,
    "sinh": torch.sinh,
    "square": torch.square,
    "tan": torch.tan,
}
POSITIVE = {"sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "log": torch.log, "inverse": lambda x: 1 / (x + 1e-4)}
BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "floor_div": lambda x, y: torch.floor(x / y),
    "mod": torch.remainder,
}
COMPARE = {
    "equal": torch.eq,
    "not_equal": torch.ne,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
}
WHOLE = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "floor_div": lambda x, y: torch.div(x, y, rounding_mode="floor"),
    "real_div": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "mod": torch.remainder,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}
LOGIC = {"logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor}


def test_functions_of_one_variable() -> None:
    x = np.random.default_rng(0).uniform(-0.99, 0.99, (3, 4, 5)).astype(np.float32)
    p = np.abs(x) + np.float32(0.1)
    found = outputs(
        lambda x, p: [getattr(mb, n)(x=x) for n in UNARY] + [getattr(mb, n)(x=p) for n in POSITIVE], {"x": x, "p": p}
    )
    wanted = [f(torch.from_numpy(x)) for f in UNARY.values()] + [f(torch.from_numpy(p)) for f in POSITIVE.values()]
    for name, have, want in zip((*UNARY, *POSITIVE), found, wanted, strict=True):
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


@settings(max_examples=25, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=4, max_side=4), st.integers(0, 99))
def test_functions_of_two_variables_broadcast(shapes: hnp.BroadcastableShapes, seed: int) -> None:
    x, y = (np.round(normal(s, seed + i) * 2) / 2 for i, s in enumerate(shapes.input_shapes))
    y = np.where(y == 0, np.float32(0.5), y)
    wanted = {n: f(torch.from_numpy(x), torch.from_numpy(y)) for n, f in (BINARY | COMPARE).items()}
    wanted |= {n: f(torch.from_numpy(x > 0), torch.from_numpy(y > 0)) for n, f in LOGIC.items()}

    def build(x: mb.Var, y: mb.Var) -> list[mb.Var]:
        a, b = mb.greater(x=x, y=np.float32(0)), mb.greater(x=y, y=np.float32(0))
        floats = [getattr(mb, n)(x=x, y=y) for n in BINARY]
        bools = [getattr(mb, n)(x=x, y=y) for n in COMPARE] + [getattr(mb, n)(x=a, y=b) for n in LOGIC]
        return floats + bools

    for (name, want), have in zip(wanted.items(), outputs(build, {"x": x, "y": y}), strict=True):
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-6, err_msg=name)


def test_powers_clips_selections_and_casts() -> None:
    x, y = np.abs(normal((2, 3))) + 0.1, normal((2, 3), 1)
    i = np.array([[-7, 5, 9], [4, -3, 2]], np.int32)

    def build(x: mb.Var, y: mb.Var, i: mb.Var) -> list[mb.Var]:
        return [
            mb.pow(x=x, y=y),
            mb.clip(x=y, alpha=np.float32(-0.3), beta=np.float32(0.4)),
            mb.threshold(x=y, alpha=np.float32(0.1)),
            mb.select(cond=mb.less(x=y, y=np.float32(0)), a=x, b=y),
            mb.cast(x=mb.mul(x=y, y=np.float32(10)), dtype="int32"),
            mb.cast(x=i, dtype="fp32"),
            mb.cast(x=y, dtype="bool"),
            mb.logical_not(x=mb.cast(x=i, dtype="bool")),
            mb.floor_div(x=i, y=np.int32(2)),
            mb.real_div(x=mb.cast(x=i, dtype="fp32"), y=np.float32(2)),
            mb.mod(x=i, y=np.int32(4)),
        ]

    found = outputs(build, {"x": x, "y": y, "i": i})
    wanted = [
        np.power(x, y), np.clip(y, -0.3, 0.4), np.maximum(y, 0.1), np.where(y < 0, x, y), np.trunc(y * 10),
        i, y != 0, i == 0, np.floor(i / 2), i / 2, i - 4 * np.floor(i / 4),
    ]  # fmt: skip
    for k, (have, want) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(have, want, rtol=1e-6, err_msg=str(k))


INTEGERS = st.one_of(st.integers(-9, 9), st.integers(-(2**31) + 1, 2**31 - 1))


@settings(max_examples=25, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=1, max_dims=3, max_side=4), st.data())
def test_integers_are_exact_and_wrap_around(shapes: hnp.BroadcastableShapes, data: st.DataObject) -> None:
    x, y = (data.draw(hnp.arrays(np.int32, s, elements=INTEGERS)) for s in shapes.input_shapes)
    y = np.where(y == 0, np.int32(3), y)
    base, power = x % 7 - 3, y % 9 - 3

    def build(x: mb.Var, y: mb.Var, base: mb.Var, power: mb.Var) -> list[mb.Var]:
        two = [getattr(mb, n)(x=x, y=y) for n in (*WHOLE, *COMPARE)]
        return [*two, mb.pow(x=base, y=power), *(getattr(mb, n)(x=x) for n in ("abs", "sign", "square"))]

    found = outputs(build, {"x": x, "y": y, "base": base, "power": power})
    tx, ty, tb, tp = (torch.from_numpy(a) for a in (x, y, base, power))
    wanted = [f(tx, ty) for f in (WHOLE | COMPARE).values()]
    wanted += [torch.pow(tb, tp), torch.abs(tx), torch.sign(tx), torch.square(tx)]
    for name, have, want in zip((*WHOLE, *COMPARE, "pow", "abs", "sign", "square"), found, wanted, strict=True):
        np.testing.assert_array_equal(have, want, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), st.sampled_from([ct.target.iOS15, ct.target.iOS17]))
def test_value_inference_agrees(shape: tuple[int, ...], target: ct.target) -> None:
    x, y = normal(shape, 1, 3), normal(shape, 2, 3)
    i, epsilon = (x * 3).astype(np.int32), {"epsilon": np.float32(0.25)}

    def build(x: mb.Var, y: mb.Var, i: mb.Var) -> list[mb.Var]:
        p = mb.abs(x=x)
        return [
            *(getattr(mb, n)(x=x) for n in UNARY if n not in ("acos", "asin", "atanh")),
            *(getattr(mb, n)(x=mb.tanh(x=x)) for n in ("acos", "asin", "atanh")),
            *(getattr(mb, n)(x=p, **kw) for n in ("rsqrt", "log", "inverse") for kw in ({}, epsilon)),
            *(getattr(mb, n)(x=x, y=y) for n in (*BINARY, *COMPARE)),
            *(getattr(mb, n)(x=i, y=np.int32(3)) for n in (*WHOLE, *COMPARE)),
            mb.pow(x=p, y=y),
            mb.clip(x=x, alpha=np.float32(-1), beta=np.float32(2)),
            mb.threshold(x=x, alpha=np.float32(-0.5)),
            mb.threshold(x=i, alpha=np.int32(2)),
            mb.exp2(x=mb.abs(x=i)),
            mb.select(cond=mb.less(x=i, y=np.int32(1)), a=x, b=y),
            *(mb.cast(x=v, dtype=d) for v in (x, i) for d in ("int32", "fp32", "bool", "fp16")),
        ]

    arrays = {"x": x, "y": y, "i": i}
    for k, (have, want) in enumerate(zip(outputs(build, arrays, target), inferred(build, arrays, target), strict=True)):
        tolerance = 2e-3 if want.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(have, want, rtol=tolerance, atol=1e-6, err_msg=str(k))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
def test_casts_to_integers_hold_at_the_ends_of_the_type(dtype: str) -> None:
    """As Apple's processors convert: cut towards zero, NaN is 0. From a larger integer type they wrap around."""
    x = np.array([0.9, -0.9, 3.99, -3.99, 126.5, 200, 70000, -70000, 3e9, -3e9, np.inf, -np.inf, np.nan], np.float32)
    i = np.array([5, -5, 127, 130, -130, 300, 70000, -70000, 2**31 - 1], np.int32)

    def build(x: mb.Var, i: mb.Var) -> list[mb.Var]:
        return [mb.cast(x=mb.cast(x=v, dtype=dtype), dtype="int32") for v in (x, i)]

    ends = np.iinfo(dtype)
    held, wrapped = outputs(build, {"x": x, "i": i})
    np.testing.assert_array_equal(held, np.clip(np.trunc(np.nan_to_num(x.astype(np.float64))), ends.min, ends.max))
    np.testing.assert_array_equal(wrapped, torch.from_numpy(i).to(getattr(torch, dtype)).int().numpy())


def test_powers_of_two_of_integers() -> None:
    i = np.array([0, 1, 30, 31, 99, -1, -5], np.int32)
    (found,) = outputs(lambda i: mb.exp2(x=i), {"i": i})
    np.testing.assert_array_equal(found, [1, 2, 2**30, 2**31 - 1, 2**31 - 1, 0, 0])


@pytest.mark.parametrize("name", ["exp", "sin", "rsqrt", "square"])
def test_in_fp16_a_result_is_the_exact_one_rounded_once(name: str) -> None:
    x = (np.abs(normal((64, 64))) + 0.01).astype(np.float16)
    (found,) = outputs(lambda x: getattr(mb, name)(x=x), {"x": x}, precision="fp16")
    exact = (UNARY | POSITIVE)[name](torch.from_numpy(x.astype(np.float32))).numpy()
    assert found.dtype == np.float16
    # sin and exp differ between libraries in the last bit of fp32, which moves at most a few roundings
    assert (found != exact.astype(np.float16)).mean() < 1e-3
