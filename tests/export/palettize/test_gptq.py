"""GPTQ against rounding each weight on its own."""

from __future__ import annotations

import numpy as np
import pytest

from satchel.export.palettize import gptq
from satchel.export.palettize.affine import affine
from satchel.export.palettize.curvature import Curvature
from satchel.export.palettize.fit import palettize
from satchel.export.palettize.refine import refine_affine, refine_palette


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, Curvature]:
    random = np.random.default_rng(0)
    x = random.normal(size=(2000, 24)) @ random.normal(size=(24, 192)) + 0.1 * random.normal(size=(2000, 192))
    share = random.uniform(size=64)
    curvature = Curvature((x.T @ x / 2000).astype(np.float32), (share / share.sum()).astype(np.float32))
    return random.normal(size=(64, 192)).astype(np.float32), curvature


def test_the_factor_is_that_of_the_damped_inverse(problem):
    _, curvature = problem
    upper = gptq.inverse_factor(curvature.hessian).astype(np.float64)
    damped = curvature.hessian + 0.01 * np.diagonal(curvature.hessian).mean() * np.eye(192)
    assert np.array_equal(upper, np.triu(upper))
    np.testing.assert_allclose(upper.T @ upper @ damped, np.eye(192), atol=1e-3)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_palette_loses_far_less_than_by_rounding(problem, groups):
    w, curvature = problem
    rounded = palettize(w, np.diagonal(curvature.hessian).copy(), groups=groups)
    ours = gptq.palette(w, curvature.hessian, groups=groups)
    assert curvature.loss(ours.dequantize() - w) < 0.3 * curvature.loss(rounded.dequantize() - w)


@pytest.mark.parametrize("symmetric", [False, True])
def test_affine_codes_lose_far_less_than_by_rounding(problem, symmetric):
    w, curvature = problem
    rounded = affine(w, np.diagonal(curvature.hessian).copy(), symmetric=symmetric)
    ours = gptq.affine(w, curvature.hessian, symmetric=symmetric)
    assert ours.symmetric == symmetric
    assert curvature.loss(ours.dequantize() - w) < 0.3 * curvature.loss(rounded.dequantize() - w)


@pytest.mark.parametrize("symmetric", [False, True])
def test_refined_blocks_lose_less(problem, symmetric):
    w, curvature = problem
    start = gptq.affine(w, curvature.hessian, symmetric=symmetric)
    once, thrice = (refine_affine(w, curvature.hessian, start, sweeps) for sweeps in (1, 3))
    losses = [curvature.loss(t.dequantize() - w) for t in (start, once, thrice)]
    assert losses[1] < 0.97 * losses[0] and losses[2] < losses[1]
    assert once.symmetric == symmetric and np.array_equal(once.scale, once.scale.astype(np.float16))


@pytest.mark.parametrize(("groups", "bits"), [(1, 4), (4, 4), (1, 3)])
def test_a_refined_palette_loses_less_with_the_same_luts(problem, groups, bits):
    w, curvature = problem
    start = gptq.palette(w, curvature.hessian, groups=groups, bits=bits)
    once, thrice = (refine_palette(w, curvature.hessian, start, sweeps) for sweeps in (1, 3))
    losses = [curvature.loss(t.dequantize() - w) for t in (start, once, thrice)]
    assert losses[1] < 0.99 * losses[0] and losses[2] <= losses[1]
    assert np.array_equal(once.lut, start.lut)


def test_channels_that_are_never_used_and_rows_of_zeros(problem):
    w, curvature = problem
    w, hessian = w.copy(), curvature.hessian.copy()
    w[3] = 0
    hessian[7], hessian[:, 7] = 0, 0
    for found in (
        refine_palette(w, hessian, gptq.palette(w, hessian), 1),
        refine_affine(w, hessian, gptq.affine(w, hessian), 1),
    ):
        assert np.isfinite(found.dequantize()).all() and np.abs(found.dequantize()[3]).max() < 1e-3
