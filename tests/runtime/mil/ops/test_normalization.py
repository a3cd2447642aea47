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
