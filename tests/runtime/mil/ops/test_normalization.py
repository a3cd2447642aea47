"""Normalizations, against torch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import mb, normal, outputs


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 6), min_size=2, max_size=4), st.booleans(), st.data())
def test_layer_norm_over_last_axes(shape: list[int], affine: bool, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(shape)))
    axes = [i - count for i in range(count)]
    x, inner = normal(tuple(shape), 1, 3), tuple(shape[-count:])
    gamma, beta = (normal(inner, 2), normal(inner, 3)) if affine else (None, None)
    (found,) = outputs(
        lambda x: mb.layer_norm(x=x, axes=axes, gamma=gamma, beta=beta, epsilon=np.float32(1e-3)), {"x": x}
    )
    weight = [None if v is None else torch.from_numpy(v) for v in (gamma, beta)]
    np.testing.assert_allclose(found, F.layer_norm(torch.from_numpy(x), inner, *weight, 1e-3), rtol=2e-5, atol=2e-6)


def test_norms_over_channels_and_spaces() -> None:
    x, eps = normal((2, 3, 4, 5), 4), np.float32(1e-4)
    mean, gamma, beta = normal((3,), 5), normal((3,), 6), normal((3,), 7)
    variance = np.abs(normal((3,), 8)) + 0.1

    def build(x: mb.Var) -> list[mb.Var]:
        return [
            mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, epsilon=eps),
            mb.batch_norm(x=x, mean=mean, variance=variance, epsilon=eps),
            mb.instance_norm(x=x, gamma=gamma, beta=beta, epsilon=eps),
            mb.instance_norm(x=x, epsilon=eps),
            mb.l2_norm(x=x, epsilon=eps),
            mb.layer_norm(x=x, axes=[1], gamma=gamma, beta=beta, epsilon=eps),
        ]

    t, (m, v, g, b) = torch.from_numpy(x), (torch.from_numpy(a) for a in (mean, variance, gamma, beta))
    wanted = [
        F.batch_norm(t, m, v, g, b, eps=float(eps)),
        F.batch_norm(t, m, v, eps=float(eps)),
        F.instance_norm(t, weight=g, bias=b, eps=float(eps)),
        F.instance_norm(t, eps=float(eps)),
        t / (t.square().sum((1, 2, 3), keepdim=True) + eps).sqrt(),
        F.layer_norm(t.movedim(1, -1), (3,), g, b, float(eps)).movedim(-1, 1),
    ]
    for k, (have, want) in enumerate(zip(outputs(build, {"x": x}), wanted, strict=True)):
        np.testing.assert_allclose(have, want.numpy(), rtol=2e-5, atol=2e-6, err_msg=str(k))


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 5), st.integers(1, 6), st.booleans(), st.data())
def test_local_response_norm(rank: int, size: int, defaults: bool, data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=rank, max_size=rank))
    alpha, beta, k = (1e-4, 0.75, 1.0) if defaults else (data.draw(st.floats(0.01, 2)) for _ in range(3))
    alpha, beta, k = (float(np.float32(v)) for v in (alpha, beta, k))
    x = normal(tuple(shape), 1, 5)
    given_values = {} if defaults else {"alpha": np.float32(alpha), "beta": np.float32(beta), "k": np.float32(k)}
    (found,) = outputs(lambda x: mb.local_response_norm(x=x, size=size, **given_values), {"x": x})
    want = F.local_response_norm(torch.from_numpy(x).double(), size, alpha, beta, k)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=3, max_size=5), st.booleans(), st.booleans(), st.data())
def test_norms_over_any_axes(shape: list[int], every: bool, affine: bool, data: st.DataObject) -> None:
    rank = len(shape)
    axes = data.draw(st.sets(st.integers(0, rank - 1), min_size=1).map(sorted))
    over = list(range(rank)) if every else axes
    signs = data.draw(st.lists(st.booleans(), min_size=rank, max_size=rank))
    given_axes = [a - rank if signs[a] else a for a in over]
    x = normal(tuple(shape), 1, 3)
    inner = tuple(shape[i] for i in over)
    gamma, beta = (normal(inner, 2), normal(inner, 3)) if affine else (None, None)
    layer, unit = outputs(
        lambda x: [mb.layer_norm(x=x, axes=given_axes, gamma=gamma, beta=beta), mb.l2_norm(x=x)], {"x": x}
    )
    t = torch.from_numpy(x).double()
    moved = t.movedim(over, tuple(range(rank - len(over), rank)))
    weights = [None if v is None else torch.from_numpy(v).double() for v in (gamma, beta)]
    want = F.layer_norm(moved, inner, *weights, 1e-5).movedim(tuple(range(rank - len(over), rank)), over)
    # Where the values differ little, epsilon is what divides: an error of the mean, 1e-7 |x|, is multiplied by 316.
    np.testing.assert_allclose(layer, want, rtol=1e-5, atol=2e-4 if min(np.prod(inner), 9) < 3 else 5e-6)
    np.testing.assert_allclose(unit, t / (t.square().sum((-3, -2, -1), keepdim=True) + 1e-6).sqrt(), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 5), st.booleans(), st.sampled_from([None, 1e-3]))
def test_batch_and_instance_norm_of_any_rank(rank: int, affine: bool, epsilon: float | None) -> None:
    shape = (2, 3, 4, 5, 2)[:rank]
    x, mean, variance = normal(shape, 1, 3), normal((3,), 2), np.abs(normal((3,), 3)) + 0.1
    gamma, beta = (normal((3,), 4), normal((3,), 5)) if affine else (None, None)
    given_epsilon = {} if epsilon is None else {"epsilon": np.float32(epsilon)}
    whole, single = outputs(
        lambda x: [
            mb.batch_norm(x=x, mean=mean, variance=variance, gamma=gamma, beta=beta, **given_epsilon),
            mb.instance_norm(x=x, gamma=gamma, beta=beta, **given_epsilon),
        ],
        {"x": x},
    )
    t = torch.from_numpy(x).double()
    m, v, g, b = (None if a is None else torch.from_numpy(a).double() for a in (mean, variance, gamma, beta))
    eps = epsilon or 1e-5
    np.testing.assert_allclose(whole, F.batch_norm(t, m, v, g, b, eps=eps), rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(single, F.instance_norm(t, weight=g, bias=b, eps=eps), rtol=1e-5, atol=5e-6)
