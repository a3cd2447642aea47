"""Reductions, against torch and numpy in double precision, over any axes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Function
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from scipy.special import logsumexp

from satchel.runtime.mil.ops import reduction

NAMES = ("sum", "mean", "max", "min", "prod", "sum_square", "l1_norm", "l2_norm", "log_sum", "log_sum_exp")


def wanted(name: str, x: np.ndarray, axes: tuple[int, ...], keep: bool) -> np.ndarray:
    x = x.astype(np.float64)
    kw = {"axis": axes, "keepdims": keep}
    return {
        "sum": lambda: x.sum(**kw),
        "mean": lambda: x.mean(**kw),
        "max": lambda: x.max(**kw),
        "min": lambda: x.min(**kw),
        "prod": lambda: x.prod(**kw),
        "sum_square": lambda: (x * x).sum(**kw),
        "l1_norm": lambda: np.abs(x).sum(**kw),
        "l2_norm": lambda: np.sqrt((x * x).sum(**kw)),
        "log_sum": lambda: np.log(x.sum(**kw)),
        "log_sum_exp": lambda: logsumexp(x, **kw),
    }[name]()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.booleans(), st.data())
def test_reductions(shape: list[int], keep: bool, data: st.DataObject) -> None:
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    axes = tuple(a - len(shape) if data.draw(st.booleans()) else a for a in axes)
    x = np.abs(normal(tuple(shape), 5)) + 0.1
    found = outputs(lambda x: [getattr(mb, f"reduce_{n}")(x=x, axes=axes, keep_dims=keep) for n in NAMES], {"x": x})
    for name, have in zip(NAMES, found, strict=True):
        np.testing.assert_allclose(have, wanted(name, x, axes, keep), rtol=1e-5, atol=1e-6, err_msg=name)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.booleans(), st.booleans(), st.data())
def test_indices_sums_and_orders_along_an_axis(shape: list[int], a: bool, b: bool, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    k = data.draw(st.integers(1, shape[axis]))
    x = normal(tuple(shape), 7)
    x[x > 1] = 1  # ties

    def build(x: mb.Var) -> list[mb.Var]:
        return [
            mb.reduce_argmax(x=x, axis=axis, keep_dims=a),
            mb.reduce_argmin(x=x, axis=axis, keep_dims=a),
            mb.cumsum(x=x, axis=axis, exclusive=a, reverse=b),
            mb.argsort(x=x, axis=axis, ascending=a),
            *mb.topk(x=x, k=k, axis=axis, ascending=a),
        ]

    most, least, total, order, top, where = outputs(build, {"x": x})
    t = torch.from_numpy(x)
    for index, extreme in ((most, x.max(axis, keepdims=True)), (least, x.min(axis, keepdims=True))):
        at = index if a else np.expand_dims(index, axis)
        np.testing.assert_array_equal(np.take_along_axis(x, at, axis), extreme)
    flipped = t.flip(axis) if b else t
    sums = flipped.double().cumsum(axis) - (flipped.double() if a else 0)
    np.testing.assert_allclose(total, (sums.flip(axis) if b else sums).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.take_along_axis(x, order, axis), t.sort(axis, descending=not a).values.numpy())
    np.testing.assert_array_equal(top, t.topk(k, axis, largest=not a).values.numpy())
    np.testing.assert_array_equal(np.take_along_axis(x, where, axis), top)


def test_integers_stay_integers_and_means_do_not_overflow() -> None:
    i = np.arange(12, dtype=np.int32).reshape(3, 4)
    x = np.full((1, 8), 60000, np.float16)
    s, m = outputs(lambda i: [mb.reduce_sum(x=i, axes=[0]), mb.reduce_max(x=i, axes=[1])], {"i": i})
    np.testing.assert_array_equal(s, i.sum(0))
    np.testing.assert_array_equal(m, i.max(1))
    mean, total = outputs(
        lambda x: [mb.reduce_mean(x=x, axes=[1]), mb.reduce_sum(x=x, axes=[1])], {"x": x}, precision="fp16"
    )
    assert mean[0] == 60000
    assert np.isinf(total[0])


def evaluated(make: Callable[[], mb.Var]) -> np.ndarray:
    """What coremltools itself makes of an op over constants."""
    with Function({}, opset_version=ct.target.iOS17):
        return np.asarray(make().val)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.booleans(), st.booleans(), st.data())
def test_reductions_of_integers(shape: list[int], keep: bool, every: bool, data: st.DataObject) -> None:
    axes = None if every else sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    given_axes = {} if axes is None else {"axes": axes}
    x = np.random.default_rng(1).integers(1, 9, shape).astype(np.int32)
    ops = {n: getattr(mb, f"reduce_{n}") for n in NAMES}
    found = outputs(lambda x: [op(x=x, keep_dims=keep, **given_axes) for op in ops.values()], {"x": x})
    for (name, op), have in zip(ops.items(), found, strict=True):
        want = evaluated(lambda op=op: op(x=x, keep_dims=keep, **given_axes))
        # Both round to integers towards zero, from logarithms that may differ in the last place.
        assert np.abs(have.reshape(want.shape) - want).max() <= (name in ("log_sum", "log_sum_exp", "l2_norm")), name


INTEGERS = ("int8", "uint8", "int16", "uint16", "int32")


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(INTEGERS), st.booleans(), st.booleans(), st.data())
def test_the_order_of_integers_up_to_their_limits(name: str, ascending: bool, short: bool, data: st.DataObject) -> None:
    limits = np.iinfo(name)
    values = st.sampled_from([limits.min, limits.min + 1, 0, 1, limits.max])
    x = np.array(data.draw(st.lists(values, min_size=2, max_size=6)), name)
    k = data.draw(st.integers(1, len(x)))
    indices = {"output_indices_dtype": "uint16"} if short else {}

    def build(x: mb.Var) -> list[mb.Var]:
        typed = mb.cast(x=x, dtype=name)
        top, where = mb.topk(x=typed, k=k, ascending=ascending, **indices)
        alone = mb.topk(x=typed, k=k, ascending=ascending, return_indices=False)
        most = mb.reduce_argmax(x=x, axis=0, output_dtype="uint16" if short else "int32")
        casts = [mb.cast(x=v, dtype="int32") for v in (top, alone, where, most)]
        return [*casts, mb.argsort(x=x, axis=-1, ascending=ascending)]

    top, alone, where, most, order = outputs(build, {"x": x.astype(np.int32)}, target=ct.target.iOS17)
    want = np.sort(x)[:k] if ascending else np.sort(x)[::-1][:k]
    np.testing.assert_array_equal(top, want)
    np.testing.assert_array_equal(alone, want)
    np.testing.assert_array_equal(x[where], want)
    assert x[int(most.item())] == x.max()
    np.testing.assert_array_equal(x[order], np.sort(x) if ascending else np.sort(x)[::-1])


def test_an_exclusive_sum_does_not_take_away_what_it_added() -> None:
    x = np.array([1, 1e30, 2, np.inf, 3], np.float32)
    forward, backward = outputs(
        lambda x: [mb.cumsum(x=x, exclusive=True), mb.cumsum(x=x, axis=-1, exclusive=True, reverse=True)], {"x": x}
    )
    np.testing.assert_array_equal(forward, np.array([0, 1, 1e30, 1e30, np.inf], np.float32))
    np.testing.assert_array_equal(backward, np.array([np.inf, np.inf, np.inf, 3, 0], np.float32))


def test_all_or_too_many_of_an_axis() -> None:
    x = np.array([3, 1, 2], np.float32)
    values, index = reduction.topk(x, k=-1)
    np.testing.assert_array_equal(values, [3, 2, 1])
    np.testing.assert_array_equal(index, [0, 2, 1])
    with pytest.raises(ValueError, match="4 of 3"):
        reduction.topk(x, k=4)
