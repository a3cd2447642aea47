"""pytest plugin: coremltools' own tests of ops, which expect Core ML on a Mac, with our runtime in its place.

They hold what Apple's engineers wrote down about each op, some 10,000 cases, with values from torch, numpy or Core ML
itself. All of them take about half an hour of one core; SUITE_EVERY=20 runs every twentieth:

    PYTHONPATH=tests/support PYMIL_TEST_TARGETS=mlprogram python -m pytest -c /dev/null -p coremltools_suite \
        --import-mode=importlib --pyargs coremltools.converters.mil.mil.ops.tests
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import coremltools as ct
import numpy as np
import onnxruntime as ort
import pytest
from coremltools.converters.mil import testing_utils
from onnx import TensorProto, helper

from satchel import coreml
from satchel.runtime import mil
from satchel.runtime.errors import FormatError

TOLERANCE = 5e-3  # of constants in fp16, summed up
their_comparison = testing_utils.compare_backend
MACOS = (15, 4)  # the tests that they skip on older systems are meant to run
# Tests that fail by design: a pattern for their names, and why.
DEVIATIONS = {
    r"iOS15/test_image_resizing.py::TestCropResize::test_builder_to_backend_smoke": (
        "a normalized box from 2 to 1, which the op's documentation forbids: Core ML gives the whole image"
    ),
    r"iOS17/test_scatter_gather.py::.*::test_ios17_invalid_indices\[.*validate_indices=False": (
        "indices out of bounds where the program does not want them validated: undefined, the test wants wrong values"
    ),
}


def predict(model: Any, data: Mapping[str, Any], state: Any = None) -> dict[str, Any]:
    """MLModel.predict, by our runtime. Like Core ML it takes floats for whole numbers."""
    ours = _loaded(model)
    features = ours.signature(getattr(model, "function_name", None)).inputs
    arrays = {n: v.astype(features[n].dtype) if isinstance(v, np.ndarray) else v for n, v in data.items()}
    try:
        return ours.predict(arrays, state, function=getattr(model, "function_name", None))
    except FormatError as error:  # as Core ML says it
        raise RuntimeError(f"Unable to compute the prediction using ML Program: {error}") from error


def make_state(model: Any) -> Any:
    """MLModel.make_state, by our runtime."""
    return _loaded(model).make_state(getattr(model, "function_name", None))


def _loaded(model: Any) -> coreml.Model:
    if model.package_path is None:
        pytest.skip("a NeuralNetwork model")
    if not hasattr(model, "_satchel"):
        model._satchel = coreml.Model(mil.load(model.package_path, kernels="numpy"))
    return model._satchel


def non_max_suppression(
    boxes: np.ndarray, scores: np.ndarray, max_output_size: int, iou_threshold: float, score_threshold: float
) -> Any:
    """TensorFlow's, by onnxruntime: their reference for suppression is made of it."""
    names = ("boxes", "scores", "most", "overlap", "threshold")
    types = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    inputs = [helper.make_tensor_value_info(n, t, None) for n, t in zip(names, types, strict=True)]
    kept = helper.make_tensor_value_info("kept", TensorProto.INT64, None)
    graph = helper.make_graph([helper.make_node("NonMaxSuppression", names, ["kept"])], "nms", inputs, [kept])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = (boxes[None], scores[None, None], [max_output_size], [iou_threshold], [score_threshold])
    feed = {
        n: np.asarray(v, np.int64 if t == TensorProto.INT64 else np.float32)
        for n, t, v in zip(names, types, values, strict=True)
    }
    return SimpleNamespace(numpy=lambda: session.run(None, feed)[0][:, 2])


def compare(*args: Any, dtype: str = "fp32", atol: float = 1e-4, rtol: float = 1e-5, **kwargs: Any) -> Any:
    """Their comparison, stricter for fp16: only constants are rounded here, so that 0.5 is not needed."""
    return their_comparison(*args, dtype="fp32", atol=max(atol, TOLERANCE), rtol=max(rtol, TOLERANCE), **kwargs)


def pytest_configure() -> None:
    """Puts our runtime in the place of Core ML's."""
    testing_utils.compare_backend = compare
    testing_utils._IS_MACOS = True
    ct.utils._macos_version = lambda: MACOS
    ct.models.MLModel.predict = predict
    ct.models.MLModel.make_state = make_state


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Thins the tests out, lends TensorFlow's suppression to modules that want it, and marks the deviations."""
    items[:] = items[:: int(os.environ.get("SUITE_EVERY", "1"))]
    for item in items:
        if not hasattr(item.module, "tf"):
            item.module.tf = SimpleNamespace(image=SimpleNamespace(non_max_suppression=non_max_suppression))
        if "TestNonMaximumSuppression" in item.nodeid:
            for node in item.listchain():
                node.own_markers = [m for m in node.own_markers if "TensorFlow" not in str(m.kwargs.get("reason"))]
        for pattern, reason in DEVIATIONS.items():
            if re.search(pattern, item.nodeid):
                item.add_marker(pytest.mark.xfail(reason=reason))
