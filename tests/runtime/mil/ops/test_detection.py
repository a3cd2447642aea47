"""Non-maximum suppression, against onnxruntime's and the values that Core ML gives."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from hypothesis import given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, outputs
from onnx import TensorProto, helper


def onnx_suppression(boxes: np.ndarray, scores: np.ndarray, overlap: float, threshold: float) -> list[tuple[int, int]]:
    """(class, box) that onnxruntime keeps of boxes [b, 4] with scores [k, b], each class by itself."""
    names = ("boxes", "scores", "most", "overlap", "threshold")
    node = helper.make_node("NonMaxSuppression", names, ["kept"], center_point_box=1)
    types = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT]
    inputs = [helper.make_tensor_value_info(n, t, None) for n, t in zip(names, types, strict=True)]
    graph = helper.make_graph([node], "nms", inputs, [helper.make_tensor_value_info("kept", TensorProto.INT64, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = (boxes[None], scores[None], np.array([len(boxes)]), np.float32([overlap]), np.float32([threshold]))
    return [(int(k), int(i)) for _, k, i in session.run(None, dict(zip(names, feed, strict=True)))[0]]


def wanted(boxes: np.ndarray, scores: np.ndarray, overlap: float, threshold: float, per_class: bool) -> list[int]:
    """Indices in order of score: each box has the class of its best score, and the best box is always kept."""
    best, classes = scores.max(1), scores.argmax(1)
    groups = classes if per_class else np.zeros_like(classes)
    apart = np.full((groups.max() + 1, len(boxes)), -np.inf, np.float32)
    apart[groups, np.arange(len(boxes))] = best
    kept = [i for k, i in onnx_suppression(boxes, apart, overlap, threshold) if groups[i] == k]
    return sorted(kept, key=lambda i: -best[i]) or [int(best.argmax())]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 30), st.integers(1, 4), st.integers(1, 35), st.sampled_from([0.05, 0.3, 0.9]),
    st.sampled_from([-9, 0, 1.5, 9]), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_suppression(
    n: int, b: int, k: int, most: int, overlap: float, threshold: float, per_class: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 5, (n, b, 2)), rng.uniform(0.1, 4, (n, b, 2))], 2).astype(np.float32)
    scores = rng.standard_normal((n, b, k)).astype(np.float32)
    kw = {"iou_threshold": np.float32(overlap), "max_boxes": most, "per_class_suppression": per_class}
    old = outputs(
        lambda boxes, scores: mb.non_maximum_suppression(
            boxes=boxes, scores=scores, score_threshold=np.float32(threshold), **kw
        ),
        {"boxes": boxes, "scores": scores},
        target=ct.target.iOS15,
    )
    new = outputs(
        lambda boxes, scores: mb.non_maximum_suppression(boxes=boxes, scores=scores, **kw),
        {"boxes": boxes.transpose(0, 2, 1).copy(), "scores": scores.transpose(0, 2, 1).copy()},
    )
    assert (len(old), len(new)) == (4, 3)
    for i in range(n):
        for found, limit in ((old, threshold), ([new[0].swapaxes(1, 2), new[1].swapaxes(1, 2), new[2]], -np.inf)):
            kept = wanted(boxes[i], scores[i], overlap, limit, per_class)[:most]
            rest = most - len(kept)
            np.testing.assert_array_equal(found[2][i], kept + [-1] * rest)
            np.testing.assert_array_equal(found[0][i], np.pad(boxes[i][kept], [(0, rest), (0, 0)]))
            np.testing.assert_array_equal(found[1][i], np.pad(scores[i][kept], [(0, rest), (0, 0)]))
        assert old[3][i] == min(most, len(wanted(boxes[i], scores[i], overlap, threshold, per_class)))


def test_suppression_as_core_ml_has_it() -> None:
    """Values of coremltools' own test, which runs on a Mac; the first box has no area."""
    boxes = np.repeat(np.arange(4, dtype=np.float32), 4).reshape(1, 4, 4)
    scores = np.array([[[-3.5], [9.4], [2.3], [0.7]]], np.float32)
    found = outputs(
        lambda boxes, scores: mb.non_maximum_suppression(
            boxes=boxes, scores=scores, iou_threshold=np.float32(0.2), score_threshold=np.float32(0.4), max_boxes=2,
            per_class_suppression=True,
        ),
        {"boxes": boxes, "scores": scores}, target=ct.target.iOS15,
    )  # fmt: skip
    for have, want in zip(found, [boxes[:, 1:3], scores[:, 1:3], [[1, 2]], [2]], strict=True):
        np.testing.assert_array_equal(have, want)
