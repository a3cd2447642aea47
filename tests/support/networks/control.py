"""Networks whose course depends on values: loops, branches, lists of boxes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from networks.base import Network, normal


class Relaxation(nn.Module):
    """Repeats a layer until the value is small, at most a number of times that comes as an input."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor, limit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        steps = torch.zeros(1, dtype=torch.int32)
        while bool(x.abs().max() > 0.3) and bool((steps < limit).all()):
            x = torch.tanh(self.linear(x)) * 0.8
            steps = steps + 1
        return x, steps


class Branches(nn.Module):
    """Two paths, one inside the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if bool(x.sum() > 0):
            y = self.one(x)
            if bool(y.max() > 1):  # noqa: SIM108
                z = torch.relu(y)
            else:
                z = y * 2.0
        else:
            z = self.two(x) - 1.0
        return z + x


@torch.library.custom_op("networks::nms", mutates_args=())
def nms(boxes: torch.Tensor, scores: torch.Tensor, iou: float, score: float, most: int) -> torch.Tensor:
    """Greedy suppression among boxes of the same class, which is that of the largest score.

    boxes [1, n, 4] as center and size, scores [1, n, classes] -> indices [1, most], -1 behind those that stay.
    """
    best, kind = scores[0].max(-1)
    corners = torch.cat([boxes[0, :, :2] - boxes[0, :, 2:] / 2, boxes[0, :, :2] + boxes[0, :, 2:] / 2], -1)
    kept: list[int] = []
    for i in best.argsort(descending=True).tolist():
        rivals = [j for j in kept if kind[j] == kind[i]]
        if best[i] > score and all(_overlap(corners[i], corners[j]) <= iou for j in rivals):
            kept.append(i)
    return torch.tensor([(kept + [-1] * most)[:most]], dtype=torch.int32)


def _overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Intersection over union of two boxes."""
    sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
    inside = float(sides.prod())
    return inside / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - inside)


@nms.register_fake
def _(boxes: torch.Tensor, scores: torch.Tensor, iou: float, score: float, most: int) -> torch.Tensor:
    return torch.empty(1, most, dtype=torch.int32)


class Detector(nn.Module):
    """A convolutional head over anchors, boxes decoded, the best kept."""

    def __init__(self, threshold: float, classes: int = 3) -> None:
        super().__init__()
        self.threshold = threshold
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, classes, 1)
        y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        self.register_buffer("centers", torch.stack([x, y], -1).reshape(1, 64, 2) * 4 + 2)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = self.stem(image)
        delta = self.boxes(y).flatten(2).transpose(1, 2)
        scores = torch.sigmoid(self.scores(y).flatten(2).transpose(1, 2) * 6)
        center, half = self.centers + delta[..., :2] * 4, torch.exp(delta[..., 2:]) * 5
        boxes = torch.cat([center, half * 2], -1)
        kept = torch.ops.networks.nms(boxes, scores, 0.4, self.threshold, 40)
        return boxes, scores, kept


def register() -> None:
    """Tells coremltools what the custom op above is."""
    from coremltools.converters.mil import Builder as mb
    from coremltools.converters.mil.frontend.torch.ops import _get_inputs
    from coremltools.converters.mil.frontend.torch.torch_op_registry import register_torch_op

    @register_torch_op(torch_alias=["networks::nms"], override=True)
    def networks_nms(context, node):
        boxes, scores, iou, score, most = _get_inputs(context, node)
        options = {"iou_threshold": iou, "max_boxes": most, "per_class_suppression": True}
        if score.val > 0:
            options |= {"boxes": boxes, "scores": scores, "score_threshold": score}
        else:  # iOS 17 dropped the threshold, and has the boxes last
            options["boxes"] = mb.transpose(x=boxes, perm=[0, 2, 1])
            options["scores"] = mb.transpose(x=scores, perm=[0, 2, 1])
        context.add(mb.non_maximum_suppression(**options)[2], torch_name=node.name)


def _detector(threshold: float) -> nn.Module:
    register()
    return Detector(threshold)


NETWORKS: dict[str, Network] = {
    "while loop": Network(
        Relaxation,
        lambda: [{"x": normal(2, 6, seed=s), "limit": np.array([n], np.int32)} for s, n in ((0, 9), (1, 2), (2, 0))],
        route="script",
        ops=("while_loop",),
    ),
    "branches": Network(
        Branches, lambda: [{"x": normal(3, 4, seed=s)} for s in range(6)], route="script", ops=("cond",)
    ),
    "detector": Network(
        lambda: _detector(0.5),
        lambda: [{"image": normal(1, 3, 32, 32)}],
        target="iOS16",
        ops=("non_maximum_suppression",),
    ),
    "detector for iOS 17": Network(
        lambda: _detector(0.0), lambda: [{"image": normal(1, 3, 32, 32)}], ops=("non_maximum_suppression",)
    ),
}
