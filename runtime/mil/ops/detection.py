"""Object detection: non-maximum suppression."""

from __future__ import annotations

import numpy as np

from satchel.runtime.mil.ops.base import Array, Op, pick


def non_maximum_suppression(
    boxes: Array,
    scores: Array,
    *,
    iou_threshold: float,
    score_threshold: float | None = None,
    max_boxes: int,
    per_class_suppression: bool = False,
) -> tuple[Array, ...]:
    """The best boxes that do not overlap, best first.

    A box counts with the largest of its scores. Boxes that score below `score_threshold` are left out, then those whose
    intersection over union with a better box that was kept exceeds `iou_threshold`; with per_class_suppression only
    where both score best in the same class. As in the reference implementation among coremltools' tests, the best box
    is kept where no box passes the threshold, and equal scores keep the order of the boxes.

    Args:
        boxes: [n, b, 4] of (centre x, centre y, width, height); since iOS 17, which has no score_threshold, [n, 4, b].
        scores: [n, b, k]; since iOS 17 [n, k, b].
        iou_threshold, score_threshold, per_class_suppression: see above.
        max_boxes: how many are kept at most, and to how many the results are padded.

    Returns:
        boxes [n, max_boxes, 4] and scores [n, max_boxes, k] padded with 0 (since iOS 17 with the last two axes
        swapped), indices int32 [n, max_boxes] padded with -1, and before iOS 17 how many boxes were kept, int32 [n].
    """
    swapped = score_threshold is None
    if swapped:
        boxes, scores = boxes.swapaxes(1, 2), scores.swapaxes(1, 2)
    kept = [
        _suppress(b, s, iou_threshold, score_threshold, per_class_suppression, max_boxes)
        for b, s in zip(boxes, scores, strict=True)
    ]
    indices = np.full((len(boxes), max_boxes), -1, np.int32)
    for row, found in zip(indices, kept, strict=True):
        row[: len(found)] = found
    best_boxes, best_scores = (_chosen(a, indices) for a in (boxes, scores))
    if swapped:
        return best_boxes.swapaxes(1, 2), best_scores.swapaxes(1, 2), indices
    return best_boxes, best_scores, indices, np.array([len(k) for k in kept], np.int32)


def _chosen(values: Array, indices: Array) -> Array:
    """Rows of values [n, b, k] at indices [n, m], zeros where an index is -1."""
    if values.shape[1] == 0:
        return np.zeros((*indices.shape, values.shape[2]), values.dtype)
    taken = np.take_along_axis(values, np.maximum(indices, 0)[..., None], axis=1)
    return np.where(indices[..., None] >= 0, taken, values.dtype.type(0))


def _suppress(
    boxes: Array, scores: Array, overlap: float, threshold: float | None, per_class: bool, most: int
) -> list[int]:
    """Indices of the boxes [b, 4] that stay, best first, `most` of them."""
    best, classes = scores.max(axis=1, initial=-np.inf), scores.argmax(axis=1)
    order = np.argsort(-best, kind="stable")
    passed = order if threshold is None else order[best[order] >= np.float32(threshold)]
    waiting = passed if len(passed) else order[:1]
    corners, kinds = _corners(boxes[waiting]), classes[waiting]
    kept: list[int] = []
    while len(waiting) and len(kept) < most:
        kept.append(int(waiting[0]))
        stays = ~(_overlaps(corners[:, :1], corners) > np.float32(overlap))
        if per_class:
            stays |= kinds != kinds[0]
        stays[0] = False
        waiting, corners, kinds = waiting[stays], corners[:, stays], kinds[stays]
    return kept


def _corners(boxes: Array) -> Array:
    """[n, 4] of (centre x, centre y, width, height) -> [4, n] of left, top, right, bottom."""
    x, y, width, height = boxes.T
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2])


def _overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box [4, 1] with others [4, n]; 0 where they have no area in common."""
    width = np.minimum(box[2], others[2]) - np.maximum(box[0], others[0])
    height = np.minimum(box[3], others[3]) - np.maximum(box[1], others[1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    union = _areas(box) + _areas(others) - common
    return np.divide(common, union, out=np.zeros_like(common), where=common > 0)


def _areas(corners: Array) -> Array:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


OPS: dict[str, Op] = {"non_maximum_suppression": pick(non_maximum_suppression)}
