"""Gathers and scatters, against torch and coremltools' own value inference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs


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


@pytest.mark.parametrize("batch", [0, 1, 2])
def test_gathers_with_batch_axes_equal_value_inference(batch: int) -> None:
    x = normal((2, 3, 4, 5), 3)
    lead = x.shape[:batch]
    i = np.random.default_rng(4).integers(0, 3, (*lead, 2)).astype(np.int32)
    n = np.random.default_rng(5).integers(0, 2, (*lead, 3, 2)).astype(np.int32)

    def build(x: mb.Var, i: mb.Var, n: mb.Var) -> list[mb.Var]:
        return [
            mb.gather(x=x, indices=i, axis=2, batch_dims=batch),
            mb.gather_nd(x=x, indices=n, batch_dims=batch),
        ]

    inferred = []

    def constants(dummy: mb.Var) -> mb.Var:
        inferred.append(mb.gather(x=x, indices=i, axis=2, batch_dims=batch).val)
        return mb.identity(x=dummy)

    outputs(constants, {"dummy": normal((1,))})
    gathered, nd = outputs(build, {"x": x, "i": i, "n": n})
    np.testing.assert_array_equal(gathered, inferred[0])
    for place in np.ndindex(*lead, 3):
        np.testing.assert_array_equal(nd[place], x[(*place[:batch], *n[place])])


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
