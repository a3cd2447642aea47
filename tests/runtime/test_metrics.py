from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from satchel.runtime import metrics
from satchel.runtime.golden import condense


def pair(seed: int = 0, n: int = 12, vocab: int = 200, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    reference = (random.normal(size=(n, vocab)) * 4).astype(np.float32)
    return reference, reference + noise * random.normal(size=(n, vocab)).astype(np.float32)


def torch_kl(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    p, q = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (reference, candidate))
    return torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).numpy()


def test_kl_is_torch_s():
    reference, candidate = pair()
    np.testing.assert_allclose(metrics.kl(reference, candidate), torch_kl(reference, candidate), rtol=1e-9)


@given(st.integers(0, 1000), st.floats(0, 5), st.integers(1, 200))
def test_kl_from_the_top_never_exceeds_the_whole_and_is_exact_for_all_ids(seed: int, noise: float, top: int):
    reference, candidate = pair(seed, noise=noise)
    ids, kept, _, rest = condense(reference, top)
    whole, part = metrics.kl(reference, candidate), metrics.kl_from_top(ids, kept, rest, candidate)
    assert (part <= whole + 1e-6).all() and (part >= 0).all()
    if top == 200:
        np.testing.assert_allclose(part, whole, rtol=1e-5, atol=1e-9)


def test_kl_from_the_top_is_the_formula_of_format_md():
    reference, candidate = pair(3)
    ids, kept, _, rest = condense(reference)
    p, q = (torch.softmax(torch.from_numpy(x).double(), -1).numpy() for x in (reference, candidate))
    wanted = []
    for row in range(len(p)):
        p_top, q_top = p[row, ids[row]], q[row, ids[row]]
        p_rest, q_rest = 1 - p_top.sum(), 1 - q_top.sum()
        wanted.append((p_top * np.log(p_top / q_top)).sum() + p_rest * np.log(p_rest / q_rest))
    np.testing.assert_allclose(metrics.kl_from_top(ids, kept, rest, candidate), wanted, rtol=1e-5)


def test_identical_logits_give_no_kl_even_where_one_id_has_all_the_mass():
    reference = np.zeros((2, 100), np.float32)
    reference[0, 7], reference[1, :3] = 60, 300
    ids, kept, _, rest = condense(reference)
    assert (metrics.kl_from_top(ids, kept, rest, reference) < 1e-12).all()
    assert (metrics.kl_from_top(ids, kept, rest, reference + 5) < 1e-12).all()


def test_wrong_logits_are_never_small():
    reference, _ = pair()
    ids, kept, _, rest = condense(reference)
    for bad in (np.full_like(reference, np.nan), np.roll(reference, 1, -1), -reference):
        got = metrics.kl_from_top(ids, kept, rest, bad)
        assert (np.isnan(got) | (got > 1)).all()
    missing = reference.copy()
    missing[:, ids[0, 0]] = -np.inf
    assert metrics.kl_from_top(ids, kept, rest, missing)[0] == np.inf


def test_differences():
    reference, candidate = pair()
    r, c = torch.from_numpy(reference).double(), torch.from_numpy(candidate).double()
    np.testing.assert_allclose(metrics.largest_difference(reference, candidate), (r - c).abs().amax(-1).numpy())
    wanted = torch.cosine_similarity(r.flatten(), c.flatten(), dim=0).item()
    np.testing.assert_allclose(metrics.cosine(reference, candidate), wanted)
    np.testing.assert_allclose(metrics.sqnr(reference, candidate), 20 * torch.log10(r.norm() / (r - c).norm()).item())
    assert metrics.sqnr(reference, reference) == np.inf and metrics.cosine(reference * 0, reference * 0) == 1
    assert metrics.near_ties(np.array([0.1, 0.2]), 0.15).tolist() == [True, False]


def test_summary_and_standard_error():
    values = np.random.default_rng(0).normal(size=4003)
    summary = metrics.Summary.of(values)
    assert summary.to_json() == {
        "mean": float(values.mean()), "p99": float(np.quantile(values, 0.99)), "largest": float(values.max())
    }  # fmt: skip
    np.testing.assert_allclose(metrics.standard_error(values, 1), values.std(ddof=1) / np.sqrt(4003))
    np.testing.assert_allclose(metrics.standard_error(values, 8), 1 / np.sqrt(4000), rtol=0.15)
    repeated = np.repeat(values[:500], 8)  # neighbours that say the same: blocks see it, single values do not
    assert metrics.standard_error(repeated, 8) > 2.5 * metrics.standard_error(repeated, 1)
    assert np.isnan(metrics.standard_error(values[:7], 4))
