"""Reductions, against torch and numpy in double precision, over any axes."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import mb, normal, outputs
from scipy.special import logsumexp

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
