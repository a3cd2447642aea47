"""Tuning against torch's own gradients and optimizer, in transformers' model; and what exports make of it."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_folder import tiny_folder
from tiny_llama import MemoryWeights, naive_affine, naive_palette, tiny_llama, weights_of

import satchel
from satchel.export import job
from satchel.export.calibration import tuning
from satchel.export.calibration.divergence import divergence
from satchel.export.memory import plan_memory
from satchel.export.palettize.scaling import DECAY, SQUARE_DECAY, Scaling
from satchel.export.palettize.selection import read_selection
from satchel.export.palettize.spec import CALIBRATION, Calibration
from satchel.export.palettize.store import WeightStore
from satchel.runtime.parity import validate

IDS = np.random.Generator(np.random.PCG64(3)).integers(0, 96, (96, 32))


def weights(reference, config, kind):
    """The original's weights, and the same with linears of few bits."""
    exact = weights_of(reference, config)
    rounded = {name: KINDS[kind](exact.matrix(name).values) for name in config.linear_shapes()}
    return exact, MemoryWeights(exact.matrices | rounded, exact.vectors)


KINDS = {
    "int4": lambda w: naive_affine(w, symmetric=False),
    "palette": lambda w: naive_palette(w, groups=2, bits=3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_adams_for_shares_of_scales(kind):
    random = np.random.Generator(np.random.PCG64(1))
    start = KINDS[kind](random.normal(size=(8, 64)).astype(np.float32))
    scaling, rate = Scaling(start), 0.01
    first = torch.from_numpy(scaling.state["scales"].copy())
    share = torch.ones_like(first).requires_grad_(True)
    adam = torch.optim.Adam([share], lr=rate, betas=(DECAY, SQUARE_DECAY), eps=0)
    target = torch.from_numpy(1.1 * start.dequantize())
    np.testing.assert_array_equal(scaling.values, start.dequantize())
    unit = torch.from_numpy(start.dequantize()).view(*first.shape, -1) / first[..., None]
    for number in range(1, 30):
        adam.zero_grad()
        values = (unit * (first * share)[..., None]).view(8, 64)
        np.testing.assert_allclose(values.detach(), scaling.values, rtol=1e-4)
        (values - target).pow(4).sum().backward()
        scaling.step((4 * (torch.from_numpy(scaling.values) - target) ** 3).numpy(), number, rate)
        adam.step()
    found = scaling.matrix()
    assert found.scheme() == start.scheme() and found.shape == start.shape
    np.testing.assert_allclose(found.dequantize(), scaling.values, rtol=2e-3)
    assert np.abs(found.dequantize() - target.numpy()).sum() < 0.5 * np.abs(start.dequantize() - target.numpy()).sum()
    scaling.reset()
    np.testing.assert_array_equal(scaling.values, start.dequantize())


def test_gradients_are_those_of_the_whole_model(monkeypatch):
    """transformers' model with the rounded weights, differentiated as one."""
    reference, config = tiny_llama()
    original, start = weights(reference, config, "palette")
    ids = torch.from_numpy(IDS[:3])
    with torch.no_grad():
        wanted = torch.log_softmax(reference(input_ids=ids).logits, -1)
        for name in config.linear_shapes():
            reference.get_parameter(f"model.{name}.weight").copy_(torch.from_numpy(start.matrix(name).dequantize()))
    reference.requires_grad_(True)
    loss = (wanted.exp() * (wanted - torch.log_softmax(reference(input_ids=ids).logits, -1))).sum(-1).mean()
    loss.backward()
    scalings = {name: Scaling(start.matrix(name)) for name in config.linear_shapes()}
    seen = {}
    for name, each in scalings.items():
        monkeypatch.setattr(each, "step", lambda g, number, rate, name=name: seen.update({name: g.copy()}))
    found = tuning._Tuning(config, original, start, scalings)
    states = tuning._final_states(config, original, ids)
    assert found.step(ids, states, 1, 0.1) == pytest.approx(loss.item(), rel=2e-2)
    for name, gradient in seen.items():
        want = reference.get_parameter(f"model.{name}.weight").grad.numpy()
        assert np.corrcoef(gradient.ravel(), want.ravel())[0, 1] > 0.999, name
        assert np.linalg.norm(gradient) == pytest.approx(np.linalg.norm(want), rel=2e-2)
    assert set(seen) == set(config.linear_shapes())


@pytest.mark.parametrize("kind", KINDS)
def test_less_is_lost_on_other_text_and_a_stopped_run_ends_in_the_same_bytes(kind, tmp_path, monkeypatch):
    reference, config = tiny_llama()
    original, start = weights(reference, config, kind)
    monkeypatch.setattr(tuning, "BATCH_TOKENS", 256)
    monkeypatch.setattr(tuning, "RATE", 0.002)
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    whole = dict(tuning.tuned(config, original, start, IDS, tmp_path / "one"))
    better = MemoryWeights(start.matrices | whole, start.vectors)
    other = np.random.Generator(np.random.PCG64(9)).integers(0, 96, (32, 32))
    before, after = (divergence(config, original, each, other) for each in (start, better))
    assert after < 0.98 * before

    def stop(stage, done, all_of_them):
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dict(tuning.tuned(config, original, start, IDS, tmp_path / "two", progress=stop))
    told = []
    again = tuning.tuned(config, original, start, IDS, tmp_path / "two", progress=lambda *a: told.append(a[1]))
    assert {name: matrix.digest() for name, matrix in again} == {name: m.digest() for name, m in whole.items()}
    assert told == [*range(25, 37), 36], "two of three passes were kept"


def test_the_highest_effort_is_tuned_where_there_is_room(tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "tiny")
    monkeypatch.setitem(CALIBRATION, "high", Calibration(own=2, shipped=30, length=64))
    monkeypatch.setattr(tuning, "BATCH_TOKENS", 128)
    options = {"context": 64, "effort": "high", "weights": "int4", "work": tmp_path / "work", "overwrite": True}
    (bundle,) = satchel.export(folder, "pixel-9", output=tmp_path / "out", **options)
    (store,) = (WeightStore(path) for path in (tmp_path / "work").glob("weights-*"))
    (forms,) = (WeightStore(path) for path in (tmp_path / "work").glob("forms-*"))
    names = bundle.manifest.weights.selection.counts
    assert sum(names.values()) == 14 and not list((tmp_path / "work").glob("tuning-*"))
    chosen = {name: form for name, form in read_selection(store).forms.items() if form != "8"}
    assert all(store.matrix(name).digest() != forms.candidate(name, form).digest() for name, form in chosen.items())
    assert validate(bundle, limits={"quality.kl_mean": None, "quality.top1": None}).passed
    golden = {p.name: p.read_bytes() for p in (bundle.folder / "golden").iterdir()}
    plan = job.plan_memory
    monkeypatch.setattr(job, "plan_memory", lambda *a, **o: dataclasses.replace(plan(*a, **o), tuned=False))
    (plain,) = satchel.export(folder, "pixel-9", output=tmp_path / "out", **options)
    assert len(list((tmp_path / "work").glob("weights-*"))) == 2
    assert golden != {p.name: p.read_bytes() for p in (plain.folder / "golden").iterdir()}


def test_text_that_teaches_nothing_else_changes_nothing(tmp_path, monkeypatch):
    """Steps so long that every pass is undone."""
    reference, config = tiny_llama()
    original, start = weights(reference, config, "int4")
    monkeypatch.setattr(tuning, "RATE", 0.5)
    monkeypatch.setattr(tuning, "WARM_UP", 1)
    for ids in (IDS[:30], IDS[:1]):
        found = dict(tuning.tuned(config, original, start, ids, tmp_path))
        assert {n: m.digest() for n, m in found.items()} == {n: start.matrix(n).digest() for n in found}
    assert not any(tmp_path.iterdir())


def test_room_for_tuning_is_a_matter_of_the_limit():
    _, config = tiny_llama(hidden=512, intermediate=2048, layers=24)
    plans = [plan_memory(config, limit, curved=True, tunable=True) for limit in (10**9 * 5 // 2, 10**10)]
    assert [plan.tuned for plan in plans] == [False, True]
    assert plans[0].bytes < plans[1].bytes <= 10**10
    assert plan_memory(config, plans[1].bytes, curved=True, tunable=True) == plans[1]
    assert not plan_memory(config, plans[1].bytes - 1, curved=True, tunable=True).tuned
    assert not plan_memory(config, 10**10, curved=True).tuned
