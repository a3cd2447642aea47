"""A limit of memory is kept or refused, and the result does not depend on it."""

import dataclasses
import hashlib
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_folder import tiny_folder
from tiny_llama import tiny_llama

import satchel
from satchel.export import job
from satchel.export.memory import MemoryPlan, plan_memory
from satchel.runtime.errors import UsageError
from satchel.runtime.sizes import parse_size

_, TINY = tiny_llama()
MINI = dataclasses.replace(
    TINY, layers=32, hidden_size=3072, intermediate_size=8192, heads=32, kv_heads=32, head_dim=96, vocab_size=32064,
    tied_embeddings=False,
)  # fmt: skip
MEDIUM = dataclasses.replace(
    MINI, layers=40, hidden_size=5120, intermediate_size=17920, heads=40, kv_heads=10, head_dim=128
)


def test_large_models_fit_by_being_streamed():
    assert plan_memory(MINI, parse_size("2GB", "")).streamed
    assert plan_memory(MEDIUM, parse_size("3GB", "")).streamed
    assert plan_memory(MEDIUM, 10**12) == plan_memory(MEDIUM, 10**11)
    assert not plan_memory(MEDIUM, 10**11).streamed


@settings(deadline=None)
@given(st.sampled_from([TINY, MINI, MEDIUM]), st.integers(10**8, 10**11))
def test_a_limit_is_kept_or_refused_with_the_least_that_is_needed(config, limit):
    try:
        plan = plan_memory(config, limit)
    except UsageError as error:
        (least,) = re.findall(r"at least (\d+MB)", str(error))
        needed = parse_size(least, "")
        assert needed > limit
        assert plan_memory(config, needed).bytes <= needed
        with pytest.raises(UsageError):
            plan_memory(config, needed - 10**6)
    else:
        assert plan.bytes <= limit
        assert plan_memory(config, plan.bytes) == plan


def test_the_bundle_is_the_same_streamed_or_not(tmp_path, monkeypatch):
    folder, threads = tiny_folder(tmp_path / "tiny"), torch.get_num_threads()
    torch.set_num_threads(1)  # where sums are in the same order
    found = []
    try:
        for plan in (MemoryPlan(False, 2, 0), MemoryPlan(True, 1, 0)):
            monkeypatch.setattr(job, "plan_memory", lambda *_, plan=plan, **__: plan)
            out = tmp_path / str(plan.workers)
            (bundle,) = satchel.export(folder, "pixel-9", context=128, weights="int8", output=out)
            files = (p for p in bundle.folder.rglob("*") if p.is_file())
            found.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_too_little_is_refused_before_anything_is_done(tmp_path):
    folder = tiny_folder(tmp_path / "tiny")
    with pytest.raises(UsageError, match=r"--max-memory.*at least \d+MB"):
        satchel.export(folder, "pixel-9", max_memory="100MB", output=tmp_path / "out")
    with pytest.raises(UsageError, match="--max-memory"):
        satchel.export(folder, "pixel-9", max_memory="much", output=tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"tiny"}


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2e9), (" 1.5 GiB", 1.5 * 2**30), ("7", 7), (7, 7), ("3k", 3000), ("1TB", 1e12)]
)
def test_sizes(text, size):
    assert parse_size(text, "--x") == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 2", "2GBB", "1e9", "2XB", "nan", "B"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="--x"):
        parse_size(text, "--x")
