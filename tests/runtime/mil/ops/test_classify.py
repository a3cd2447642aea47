"""Classifier outputs, of programs as coremltools' converter makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mil_programs import ct

from satchel.runtime import mil


@pytest.mark.parametrize("labels", [["cat", "dog", "bird"], [7, -3, 2**40]])
@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 3, 1, 1)])
def test_label_and_probabilities(labels: list[Any], shape: tuple[int, ...], tmp_path: Path) -> None:
    class Softmax(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(x, dim=0 if len(shape) == 1 else 1)

    traced = torch.jit.trace(Softmax(), torch.zeros(shape))
    model = ct.convert(
        traced, inputs=[ct.TensorType("x", shape)], classifier_config=ct.ClassifierConfig(labels),
        compute_precision=ct.precision.FLOAT32, minimum_deployment_target=ct.target.iOS16,
    )  # fmt: skip
    model.save(str(tmp_path / "model.mlpackage"))
    x = np.array([0.5, 2, -1], np.float32)
    found = mil.load(tmp_path / "model.mlpackage").run({"x": x.reshape(shape)})
    (label,) = [v for v in found.values() if not isinstance(v, dict)]
    (scores,) = [v for v in found.values() if isinstance(v, dict)]
    assert label == labels[1]
    assert isinstance(label, type(labels[0]))
    want = torch.softmax(torch.from_numpy(x), 0)
    assert list(scores) == labels
    np.testing.assert_allclose(list(scores.values()), want, rtol=1e-6)
