"""Palettes and their relatives: what they promise, and how near they come to the weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from satchel.export.palettize.affine import affine
from satchel.export.palettize.fit import int8_rows, palettize, palettize_slow
from satchel.export.palettize.tensors import PalettizedTensor


def matrix(rows=48, columns=64, seed=0):
    rng = np.random.default_rng(seed)
    w = rng.standard_t(5, (rows, columns)) * 0.05 * rng.uniform(0.3, 3, (rows, 1))
    return w.astype(np.float32), rng.chisquare(1, columns).astype(np.float32) + 0.01


def relative(w, approximation, h):
    return float((h * (approximation - w) ** 2).sum() / (h * w**2).sum())


def check_promises(t: PalettizedTensor):
    assert (t.scale >= 1).all()
    assert (t.exponent >= -14).all()
    entries = np.ldexp(t.lut.astype(np.float32), t.exponent.astype(np.int32)[:, None])
    assert (entries == entries.astype(np.float16)).all()
    assert (np.abs(entries[entries != 0]) >= 2.0**-14).all()
    assert t.index.max() < 2**t.bits
    assert (t.dequantize() == t.row_scale()[:, None] * t.codes()).all()


@pytest.mark.parametrize("groups", [1, 3])
def test_palette_keeps_its_promises_and_assigns_as_the_slow_twin(groups):
    w, h = matrix()
    t = palettize(w, h, groups=groups)
    check_promises(t)
    slow = palettize_slow(w, t)
    apart = slow != t.index
    values = t.dequantize()
    by_slow = PalettizedTensor(slow, t.lut, t.exponent, t.scale, t.bits).dequantize()
    assert np.allclose(np.abs(values - w)[apart], np.abs(by_slow - w)[apart], rtol=1e-5)  # only ties may differ
    assert apart.mean() < 0.001


def test_weighting_refit_and_groups_each_help():
    w, h = matrix(rows=64, columns=256)
    plain = relative(w, palettize(w, None).dequantize(), h)
    weighted = relative(w, palettize(w, h).dequantize(), h)
    grouped = relative(w, palettize(w, h, groups=4).dequantize(), h)
    one_round = relative(w, palettize(w, h, rounds=1).dequantize(), h)
    assert grouped < weighted < plain
    assert weighted < one_round * 1.001
    assert weighted < 0.02


def test_more_bits_are_better():
    w, h = matrix()
    by_bits = [relative(w, palettize(w, h, bits=b).dequantize(), h) for b in (2, 3, 4, 6)]
    assert by_bits == sorted(by_bits, reverse=True)


@pytest.mark.parametrize(
    "make", [lambda w, h: palettize(w, h, groups=3), lambda w, h: int8_rows(w)], ids=["palette", "int8"]
)
def test_odd_matrices(make):
    w, h = matrix()
    w[5] = 0
    w[6] *= 1e-7
    w[7] *= 1e3
    t = make(w, h)
    check_promises(t)
    assert (t.dequantize()[5] == 0).all()
    assert np.abs(t.dequantize()[6]).max() <= np.abs(w).max() / 50
    assert relative(w[7:8], t.dequantize()[7:8], h) < 0.05
    zeros = make(np.zeros_like(w), h)
    check_promises(zeros)
    assert (zeros.dequantize() == 0).all()


def test_int8_rows_within_half_a_step():
    w, _ = matrix()
    t = int8_rows(w)
    check_promises(t)
    assert (t.lut[0] == np.arange(-128, 128)).all()
    # fp16 scales move a code by less than 127 * 2**-11 of a step
    assert (np.abs(t.dequantize() - w) <= t.row_scale()[:, None] * 0.57).all()


@pytest.mark.parametrize(("symmetric", "dtype"), [(False, "float16"), (True, "bfloat16")])
def test_affine_beats_rounding_to_nearest(symmetric, dtype):
    w, h = matrix(rows=16, columns=128)
    t = affine(w, h, symmetric=symmetric, scale_dtype=dtype)
    assert t.symmetric == symmetric
    blocks = w.reshape(16, 4, 32)
    step = (np.abs(blocks).max(-1) / 7 if symmetric else (blocks.max(-1) - blocks.min(-1)) / 15)[..., None]
    zero = 0 if symmetric else np.round(-blocks.min(-1, keepdims=True) / step)
    low, high = (-8, 7) if symmetric else (0, 15)
    nearest = (np.clip(np.round(blocks / step) + zero, low, high) - zero) * step
    assert relative(w, t.dequantize(), h) < relative(w, nearest.reshape(w.shape), h)
    if dtype == "bfloat16":
        assert (t.scale.view(np.uint32) & 0xFFFF == 0).all()
    else:
        assert (t.scale == t.scale.astype(np.float16)).all()


@given(st.integers(0, 2**32 - 1), st.floats(-6, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_any_scale_of_weights(seed, magnitude, grouped):
    w, h = matrix(32, 32, seed)
    w *= np.float32(10.0**magnitude / 0.05)
    t = palettize(w, h, groups=2 if grouped else 1)
    check_promises(t)
    assert np.isfinite(t.dequantize()).all()
    if magnitude > -3:
        assert relative(w, t.dequantize(), h) < 0.1
