"""Gathers and scatters, against torch and coremltools' own value inference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, inferred, mb, normal, outputs

from satchel.runtime.errors import FormatError


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.lists(st.integers(1, 3), max_size=2), st.data())
def test_gather_along_any_axis(shape: list[int], places: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(tuple(shape))
    i = np.random.default_rng(1).integers(0, shape[axis], [*places, 2]).astype(np.int32)
    along = list(shape)
    along[axis] = 3
    j = np.random.default_rng(2).integers(0, shape[axis], along).astype(np.int32)
    found = outputs(
        lambda x, i, j: [mb.gather(x=x, indices=i, axis=axis), mb.gather_along_axis(x=x, indices=j, axis=axis)],
        {"x": x, "i": i, "j": j},
    )
    t = torch.from_numpy(x)
    taken = t.index_select(axis, torch.from_numpy(i.ravel()).long())
    lead = axis % len(shape)
    np.testing.assert_array_equal(found[0], taken.reshape(*shape[:lead], *i.shape, *shape[lead + 1 :]))
    np.testing.assert_array_equal(found[1], torch.gather(t, axis, torch.from_numpy(j).long()))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4), st.lists(st.integers(1, 3), max_size=2),
    st.sampled_from(["int32", "int16", "uint16", "int8", "uint8"]), st.data(),
)  # fmt: skip
def test_gathers_with_batch_axes(shape: list[int], places: list[int], dtype: str, data: st.DataObject) -> None:
    batch = data.draw(st.integers(0, len(shape) - 1))
    axis = data.draw(st.integers(batch, len(shape) - 1))
    depth = data.draw(st.integers(1, len(shape) - batch))
    turned = data.draw(st.booleans())  # count axes, and indices before iOS 17, from the end
    x, lead, rng = normal(tuple(shape), 3), shape[:batch], np.random.default_rng(4)
    i = rng.integers(0, shape[axis], (*lead, *places))
    n = rng.integers(0, shape[batch : batch + depth], (*lead, *places, 2, depth)).astype(np.int32)

    def build(x: mb.Var, n: mb.Var, at: int) -> list[mb.Var]:
        return [
            mb.gather(x=x, indices=i.astype(dtype), axis=at, batch_dims=batch),
            mb.gather_nd(x=x, indices=n, batch_dims=batch),
        ]

    at, arrays = axis - len(shape) if turned else axis, {"x": x, "n": n}
    gathered, nd = outputs(partial(build, at=at), arrays, ct.target.iOS17)
    # value inference fails for an axis counted from the end beside batch axes
    np.testing.assert_array_equal(gathered, inferred(partial(build, at=axis), arrays, ct.target.iOS17)[0])
    for place in np.ndindex(*nd.shape[: n.ndim - 1]):
        np.testing.assert_array_equal(nd[place], x[(*place[:batch], *n[place])])
    if not batch:
        negative = (i - shape[axis]).astype(np.int32)
        old = outputs(lambda x: mb.gather(x=x, indices=negative, axis=axis), {"x": x}, ct.target.iOS15)
        np.testing.assert_array_equal(old[0], np.take(x, i, axis))


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
@pytest.mark.parametrize("mode", ["update", "add", "sub", "mul", "div", "max", "min"])
def test_scatters(mode: str, target: ct.target) -> None:
    x, u = normal((4, 3), 6), normal((2, 3), 7) + 3
    i, n = np.array([3, 1], np.int32), np.array([[0, 2], [3, 1]], np.int32)
    along = np.array([[1, 0, 3], [2, 3, 0]], np.int32)
    found = outputs(
        lambda x, u, i, n, a: [
            mb.scatter(data=x, indices=i, updates=u, axis=0, mode=mode),
            mb.scatter_nd(data=x, indices=n, updates=mb.reduce_max(x=u, axes=[1]), mode=mode),
            mb.scatter_along_axis(data=x, indices=a, updates=u, axis=0, mode=mode),
        ],
        {"x": x, "u": u, "i": i, "n": n, "a": along},
        target=target,
    )
    join = {
        "update": lambda a, b: b, "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
        "max": np.maximum, "min": np.minimum,
    }[mode]  # fmt: skip
    wanted = [x.copy(), x.copy(), x.copy()]
    for row in range(2):
        wanted[0][i[row]] = join(x[i[row]], u[row])
        wanted[1][tuple(n[row])] = join(x[tuple(n[row])], u.max(1)[row])
        for column in range(3):
            place = (along[row, column], column)
            wanted[2][place] = join(x[place], u[row, column])
    for have, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6)


JOINS = {
    "update": lambda a, b: b, "add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum,
    "min": np.minimum, "div": lambda a, b: np.trunc(a / b) if a.dtype.kind == "i" else a / b,
}  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(list(JOINS)), st.sampled_from(["float32", "int32"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data(),
)  # fmt: skip
def test_scatters_over_shapes_axes_and_repeated_indices(
    mode: str, dtype: str, shape: list[int], data: st.DataObject
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    count, depth = data.draw(st.integers(1, shape[axis] + 2)), data.draw(st.integers(1, len(shape)))
    count = min(count, shape[axis]) if mode == "update" else count  # of equal places any update may stay
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = (normal(tuple(shape), 6) * 20).astype(dtype)
    sizes = [count if a == axis else n for a, n in enumerate(shape)]
    i = rng.permutation(shape[axis])[:count] if mode == "update" else rng.integers(0, shape[axis], count)
    along = np.argsort(rng.random(shape), axis).take(range(count), axis) if mode == "update" else None
    along = rng.integers(0, shape[axis], sizes) if along is None else along
    n = np.unique(rng.integers(0, shape[:depth], (3, depth)), axis=0) if mode == "update" else None
    n = rng.integers(0, shape[:depth], (3, depth)) if n is None else n
    u, v = (rng.integers(1, 4, s).astype(dtype) for s in (sizes, (len(n), *shape[depth:])))

    def build(x: mb.Var, u: mb.Var, v: mb.Var, i: mb.Var, along: mb.Var, n: mb.Var) -> list[mb.Var]:
        kw = {"mode": mode, "validate_indices": True}
        return [
            mb.scatter(data=x, indices=i, updates=u, axis=axis - len(shape), **kw),
            mb.scatter_along_axis(data=x, indices=along, updates=u, axis=axis, **kw),
            mb.scatter_nd(data=x, indices=n, updates=v, **kw),
        ]

    where = {"i": i, "along": along, "n": n}
    inputs = {"x": x, "u": u, "v": v, **{k: a.astype(np.int32) for k, a in where.items()}}
    wanted = [x.copy(), x.copy(), x.copy()]
    for place in np.ndindex(*sizes):
        for want, to in ((wanted[0], i[place[axis]]), (wanted[1], along[place])):
            at = (*place[:axis], to, *place[axis + 1 :])
            want[at] = JOINS[mode](want[at], u[place])
    for k, at in enumerate(n):
        wanted[2][tuple(at)] = JOINS[mode](wanted[2][tuple(at)], v[k])
    for have, want in zip(outputs(build, inputs, ct.target.iOS17), wanted, strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-5)


@pytest.mark.parametrize("index", [-1, 3])
def test_indices_that_are_to_be_validated(index: int) -> None:
    x, i, one = normal((3, 2)), np.array([index], np.int32), np.ones((1, 2), np.float32)
    builds = [
        lambda x, i, u: mb.gather(x=x, indices=i, validate_indices=True),
        lambda x, i, u: mb.gather_nd(x=x, indices=mb.expand_dims(x=i, axes=[0]), validate_indices=True),
        lambda x, i, u: mb.gather_along_axis(x=x, indices=mb.stack(values=[i, i], axis=1), validate_indices=True),
        lambda x, i, u: mb.scatter(data=x, indices=i, updates=u, validate_indices=True),
        lambda x, i, u: mb.scatter_nd(data=x, indices=mb.expand_dims(x=i, axes=[0]), updates=u, validate_indices=True),
        lambda x, i, u: mb.scatter_along_axis(
            data=x, indices=mb.stack(values=[i, i], axis=1), updates=u, validate_indices=True
        ),
    ]
    for build in builds:
        with pytest.raises(FormatError, match="indices from"):
            outputs(build, {"x": x, "i": i, "u": one})
