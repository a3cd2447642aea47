"""The Core ML backend against transformers: chunks, steps, both caches, limits, engines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coreml_caller import INFO, coreml_plan
from tiny_llama import tiny_llama, weights_of

from satchel.export.formats import coreml
from satchel.runtime.backends.coreml import CoremlBackend
from satchel.runtime.backends.coreml_runners import choose_engine
from satchel.runtime.errors import MissingPackageError, UsageError
from satchel.runtime.manifest import ModelEntry

IDS = np.random.default_rng(0).integers(0, 256, 30).tolist()
# fp32 programs to rounding; programs of fp16 hold norms and rotary tables in fp16, so their values are 5e-4 off.
TOLERANCE = {"fp32": 1e-4, "palette": 1e-2}


def written(folder: Path, scheme: str = "palette", **roles: Any) -> tuple[ModelEntry, np.ndarray]:
    """(how the package is called, the reference's logits [tokens, vocab])."""
    reference, config = tiny_llama()
    entry = coreml.write(folder, weights_of(reference, config, scheme), config, coreml_plan(**roles), INFO)
    with torch.no_grad():
        return entry, reference(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("layout", ["channels_first", "plain"])
@pytest.mark.parametrize(
    ("scheme", "roles"), [("fp32", {"cache": "io"}), ("palette", {}), ("palette", {"target": "iOS17", "prefill": 1})]
)
@pytest.mark.parametrize("prompt", [1, 8, 13, 17])
def test_prefill_and_steps_are_the_reference(
    tmp_path: Path, scheme: str, layout: str, roles: dict[str, Any], prompt: int
) -> None:
    entry, want = written(tmp_path, scheme, layout=layout, **roles)
    backend = CoremlBackend(tmp_path, entry)
    for _ in range(2):
        found = [backend.prefill(IDS[:prompt])]
        assert backend.position == prompt
        found += [backend.step(i) for i in IDS[prompt:20]]
        found.append(backend.prefill(IDS[20:]))
        assert backend.position == len(IDS)
        rows = [*range(prompt - 1, 20), len(IDS) - 1]
        np.testing.assert_allclose(found, want[rows], atol=TOLERANCE[scheme], rtol=0)
        assert all(f.dtype == np.float32 and f.shape == (256,) for f in found)
        backend.reset()
        assert backend.position == 0


def test_in_fp16_the_answer_is_near_and_overflow_is_told(tmp_path: Path) -> None:
    entry, want = written(tmp_path)
    exact, half = CoremlBackend(tmp_path, entry), CoremlBackend(tmp_path, entry, precision="fp16")
    logits = half.prefill(IDS)
    assert half.overflow is None
    assert 1e-5 < np.abs(logits - exact.prefill(IDS)).max() < 0.1
    assert np.abs(logits - want[-1]).max() < 0.1


def test_a_memory_limit_gives_the_same_answer(tmp_path: Path) -> None:
    entry, _ = written(tmp_path)
    free, limited = CoremlBackend(tmp_path, entry), CoremlBackend(tmp_path, entry, max_memory=20_000)
    np.testing.assert_array_equal(limited.prefill(IDS), free.prefill(IDS))


def test_the_context_may_be_filled_and_not_more(tmp_path: Path) -> None:
    entry, want = written(tmp_path, context=30)
    backend = CoremlBackend(tmp_path, entry)
    # 24 tokens in chunks, and the last 6 one by one: another chunk of 8 would not fit
    np.testing.assert_allclose(backend.prefill(IDS), want[-1], atol=1e-2)
    for append in (lambda: backend.step(1), lambda: backend.prefill([1])):
        with pytest.raises(UsageError, match="the context holds 30 tokens, 30 are in it"):
            append()
    backend.reset()
    with pytest.raises(UsageError, match="at least one"):
        backend.prefill([])
    with pytest.raises(UsageError, match="at most 30"):
        backend.prefill([*IDS, 1])
    assert backend.position == 0


def test_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert choose_engine("auto") == choose_engine("interpreter") == "interpreter"
    with pytest.raises(UsageError, match="macOS"):
        choose_engine("framework")
    with pytest.raises(UsageError, match="engine for Core ML"):
        choose_engine("gpu")
    monkeypatch.setattr(sys, "platform", "darwin")
    assert (choose_engine("auto"), choose_engine("framework")) == ("framework", "framework")
    assert choose_engine("interpreter") == "interpreter"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine("auto") == "interpreter"
    with pytest.raises(MissingPackageError, match="coremltools"):
        choose_engine("framework")


class FakeModel:
    """Stands for coremltools' MLModel on a Mac, over our interpreter: only how it is called is tried."""

    def __init__(self, path: str, compute_units: object, function_name: str | None) -> None:
        from satchel.runtime.mil import load

        self.program, self.function, self.units = load(path), function_name, compute_units

    def make_state(self) -> object:
        return self.program.make_state()

    def predict(self, inputs: dict[str, np.ndarray], state: Any = None) -> dict[str, np.ndarray]:
        return self.program.run(inputs, self.function, state)


@pytest.mark.parametrize("roles", [{}, {"target": "iOS17", "prefill": 1}])
def test_the_framework_is_called_as_coremltools_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roles: dict[str, Any]
) -> None:
    entry, want = written(tmp_path, **roles)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("coremltools.models.MLModel", FakeModel)
    backend = CoremlBackend(tmp_path, entry, engine="framework")
    assert backend.engine == "framework"
    assert backend.overflow is None
    for _ in range(2):
        backend.reset()
        np.testing.assert_allclose(backend.prefill(IDS), want[-1], atol=1e-2)
