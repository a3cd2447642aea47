"""Passes over the rows of a matrix, against plain numpy."""

import numpy as np
import pytest

from satchel.export.palettize import fit, lloyd
from satchel.export.palettize.fit import int8_rows, palettize


def example(rows=40, columns=1500, entries=16):
    rng = np.random.default_rng(entries)
    w, h = rng.standard_t(5, (rows, columns)).astype(np.float32), rng.chisquare(1, columns).astype(np.float32)
    return w, h, rng.uniform(0.5, 2, rows).astype(np.float32), np.sort(rng.standard_normal(entries)).astype(np.float32)


def codes(w, scale, lut):
    return np.abs((w / scale[:, None])[..., None] - lut).argmin(-1)


def error(w, h, scale, lut):
    return float((h * (w - lut[codes(w, scale, lut)] * scale[:, None]) ** 2).sum())


@pytest.mark.parametrize("entries", [2, 8, 16, 64, 256])
def test_assign_finds_the_nearest_entry(entries):
    w, _, scale, lut = example(entries=entries)
    index = np.empty(w.shape, np.uint8)
    lloyd.assign(w, scale, lut, index)
    wanted = codes(w, scale, lut)
    apart = index != wanted
    assert apart.mean() < 1e-3
    distance = np.abs((w / scale[:, None])[..., None] - lut)
    both = [np.take_along_axis(distance, i[..., None].astype(np.int64), -1)[..., 0] for i in (index, wanted)]
    assert np.allclose(*both, rtol=1e-4, atol=1e-6)  # only ties within rounding may differ


def test_refit_is_least_squares_of_scales_then_of_the_lut():
    w, h, scale, lut = example()
    values = lut[codes(w, scale, lut)]
    wanted = (h * w * values).sum(1) / (h * values**2).sum(1)
    before, scale_before = error(w, h, scale, lut), scale.copy()
    new, mass = lloyd.refit(w, h, scale, lut)
    assert np.allclose(scale, wanted, rtol=1e-5)
    members = [codes(w, scale_before, lut) == e for e in range(lut.size)]
    best = [(h * w * scale[:, None])[m].sum() / (h * scale[:, None] ** 2 * m)[m].sum() for m in members]
    assert np.allclose(new, np.sort(best), rtol=1e-4)
    assert mass.sum() == pytest.approx(float(h.sum()) * float((scale**2).sum()), rel=1e-5)
    assert error(w, h, scale, new) < before
    twice = scale_before.copy()
    lloyd.refit(w, h, twice, lut, stride=2)
    assert np.allclose(twice / scale_before, (wanted / scale_before) ** 2, rtol=1e-5)


def test_the_same_bytes_whatever_the_number_of_threads(monkeypatch):
    w, h, _, _ = example(768, 1024)
    found = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(lloyd.config, "NUMBA_NUM_THREADS", threads)
        found.append([t.digest() for t in (palettize(w, h), palettize(w, h, groups=48), int8_rows(w))])
    assert w.size > 2 * lloyd.CHUNK
    assert found[0] == found[1] == found[2]


def test_a_sample_of_the_rows_loses_little(monkeypatch):
    w, h, _, _ = example(1024, 512)
    errors = []
    for sample in (w.size, w.size // 8):
        monkeypatch.setattr(fit, "SAMPLE", sample)
        errors.append(float((h * (palettize(w, h).dequantize() - w) ** 2).sum()))
    assert errors[1] < errors[0] * 1.02


def test_an_outlier_does_not_take_the_int8_luts_digits():
    lut = np.append(np.linspace(-1.07, 1.1, 15), 30).astype(np.float32)
    mass = np.append(np.full(15, 1000.0), 1e-3)
    entries, factor = fit._round_lut(lut, mass, keep_zero=False)
    plain = np.round(lut / (30 / 127)) * (30 / 127)
    assert (mass * (entries * factor - lut) ** 2).sum() < 0.5 * (mass * (plain - lut) ** 2).sum()
    assert (fit._round_lut(lut, mass, keep_zero=True)[0] == 0).any()
