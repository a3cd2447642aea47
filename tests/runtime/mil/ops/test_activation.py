"""Activations and softmax, against torch, with large arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import mb, normal, outputs

from satchel.runtime.mil.ops import activation


def test_activations() -> None:
    x = normal((2, 3, 4, 5), scale=4)
    x[0, 0, 0] = [200, -200, 100, -100, 0]
    a, b = np.array([0.1, 0.2, 0.3], np.float32), np.array([0.5, 1, 2], np.float32)
    f = np.float32

    def build(x: mb.Var) -> list[mb.Var]:
        return [
            mb.relu(x=x),
            mb.relu6(x=x),
            mb.leaky_relu(x=x, alpha=f(0.1)),
            mb.prelu(x=x, alpha=a),
            mb.elu(x=x, alpha=f(0.7)),
            mb.sigmoid(x=x),
            mb.sigmoid_hard(x=x, alpha=f(0.2), beta=f(0.5)),
            mb.silu(x=x),
            mb.gelu(x=x, mode="EXACT"),
            mb.gelu(x=x, mode="TANH_APPROXIMATION"),
            mb.gelu(x=x, mode="SIGMOID_APPROXIMATION"),
            mb.softplus(x=x),
            mb.softplus_parametric(x=x, alpha=a, beta=b),
            mb.softsign(x=x),
            mb.scaled_tanh(x=x, alpha=f(1.5), beta=f(0.5)),
            mb.linear_activation(x=x, alpha=f(2), beta=f(-1)),
            mb.clamped_relu(x=x, alpha=f(0.1), beta=f(3)),
            mb.thresholded_relu(x=x, alpha=f(1)),
            mb.tanh(x=x),
        ]

    t = torch.from_numpy(x).double()
    ta, tb = (torch.from_numpy(v).double().reshape(1, 3, 1, 1) for v in (a, b))
    wanted = [
        F.relu(t), F.relu6(t), F.leaky_relu(t, 0.1), torch.where(t > 0, t, t * ta), F.elu(t, 0.7), torch.sigmoid(t),
        (t * 0.2 + 0.5).clamp(0, 1), F.silu(t), F.gelu(t), F.gelu(t, approximate="tanh"), t * torch.sigmoid(1.702 * t),
        F.softplus(t), ta * F.softplus(tb * t), F.softsign(t), 1.5 * torch.tanh(0.5 * t), 2 * t - 1,
        torch.where(t > 0, t, 0.1 * t).clamp(max=3), torch.where(t >= 1, t, 0.0), torch.tanh(t),
    ]  # fmt: skip
    for k, (have, want) in enumerate(zip(outputs(build, {"x": x}), wanted, strict=True)):
        # exact gelu cancels for negative x: 1 + erf loses what fp32 cannot hold
        np.testing.assert_allclose(have, want.numpy(), rtol=2e-5, atol=1e-6, err_msg=str(k))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.data())
def test_softmax_over_any_axis(shape: list[int], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(tuple(shape), 3, scale=30)
    (found,) = outputs(lambda x: mb.softmax(x=x, axis=axis), {"x": x})
    np.testing.assert_allclose(found, torch.softmax(torch.from_numpy(x), axis).numpy(), rtol=1e-5, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.floats(-2, 2, width=16), st.floats(-2, 2, width=16), st.sampled_from([16, 32]))
def test_factors_of_either_sign_in_every_rank(rank: int, a: float, b: float, bits: int) -> None:
    x = normal((2, 3, 2, 3, 2)[:rank], 1, 3).astype(f"float{bits}")
    f = np.float16 if bits == 16 else np.float32

    def build(x: mb.Var) -> list[mb.Var]:
        each = [
            mb.leaky_relu(x=x, alpha=f(a)),
            mb.elu(x=x, alpha=f(a)),
            mb.thresholded_relu(x=x, alpha=f(a)),
            mb.clamped_relu(x=x, alpha=f(a), beta=f(b)),
            mb.linear_activation(x=x, alpha=f(a), beta=f(b)),
            mb.scaled_tanh(x=x, alpha=f(a), beta=f(b)),
            mb.sigmoid_hard(x=x, alpha=f(a), beta=f(b)),
        ]
        if rank > 2:
            each.append(mb.prelu(x=x, alpha=np.full(3, a, f)))
            each.append(mb.softplus_parametric(x=x, alpha=np.array([a, b, 1], f), beta=np.array([b, 1, a], f)))
        return each

    t = torch.from_numpy(x).double()
    wanted = [
        F.leaky_relu(t, a), torch.where(t >= 0, t, a * torch.expm1(t)), torch.where(t >= a, t, 0.0),
        torch.where(t >= 0, t, a * t).clamp(max=b), a * t + b, a * torch.tanh(b * t), (a * t + b).clamp(0, 1),
    ]  # fmt: skip
    if rank > 2:
        over = (1, 3) + (1,) * (rank - 2)
        alpha, beta = (torch.tensor(v, dtype=torch.float64).reshape(over) for v in ([a, b, 1], [b, 1, a]))
        wanted += [F.prelu(t, torch.full((3,), a, dtype=torch.float64)), alpha * F.softplus(beta * t)]
    for k, (have, want) in enumerate(zip(outputs(build, {"x": x}), wanted, strict=True)):
        # a x + b may cancel: what counts is the size of its parts
        np.testing.assert_allclose(have, want.numpy(), rtol=1e-5, atol=5e-6, err_msg=str(k))


def test_an_unknown_kind_of_gelu() -> None:
    with pytest.raises(ValueError, match="ERF"):
        activation.gelu(np.zeros(1, np.float32), mode="ERF")
