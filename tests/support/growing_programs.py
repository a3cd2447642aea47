"""Programs of one or two ops each, whose results grow with a number that is a constant or an input: what a program
would be made of that is to exhaust a machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from mil_programs import mb, normal, save

X = {"x": ((1, 2, 4, 6), "float32")}
N = {"n": ((1,), "int32")}
PAIR = {"x": ((4, 3), "float32"), "y": ((4, 3), "float32")}


def _filled(n: mb.Var) -> mb.Var:
    return mb.add(x=mb.fill(shape=mb.concat(values=[n, n, n], axis=0), value=1.0), y=1.0)


def _counted(n: mb.Var) -> mb.Var:
    return mb.range_1d(start=0, end=mb.squeeze(x=n), step=1)


def _outer(x: mb.Var, y: mb.Var) -> mb.Var:
    product = mb.mul(x=mb.reshape(x=x, shape=[-1, 1]), y=mb.reshape(x=y, shape=[1, -1]))
    return mb.matmul(x=product, y=product, transpose_y=True)


def _looped(n: mb.Var) -> Any:
    one = mb.const(val=np.array([1], np.int32))

    def condition(i: mb.Var, x: mb.Var) -> mb.Var:
        return mb.less(x=mb.squeeze(x=i), y=mb.squeeze(x=n))

    def body(i: mb.Var, x: mb.Var) -> tuple[mb.Var, mb.Var]:
        return mb.add(x=i, y=one), mb.mul(x=mb.add(x=x, y=x), y=np.float32(0.5))

    return list(mb.while_loop(_cond=condition, _body=body, loop_vars=(mb.mul(x=n, y=0), normal((2, 3)))))


def _listed(n: mb.Var) -> mb.Var:
    made = mb.make_list(init_length=4, elem_shape=(2, 3), dtype="fp32", dynamic_length=True)
    made = mb.list_write(ls=made, index=mb.squeeze(x=n), value=normal((2, 3)))
    made = mb.list_scatter(ls=made, indices=[0, 2], value=normal((2, 2, 3)))
    return mb.list_gather(ls=made, indices=mb.concat(values=[n, n], axis=0))


def _boxes(x: mb.Var, y: mb.Var) -> list[mb.Var]:
    boxes, scores = mb.tile(x=mb.expand_dims(x=x, axes=[0]), reps=[1, 1, 2]), mb.expand_dims(x=y, axes=[0])
    boxes = mb.slice_by_size(x=boxes, begin=[0, 0, 0], size=[1, 4, 4])
    return list(
        mb.non_maximum_suppression(
            boxes=boxes,
            scores=scores,
            iou_threshold=0.5,
            score_threshold=-9.0,
            max_boxes=3,
            per_class_suppression=False,
        )
    )


def _looked_up(x: mb.Var, y: mb.Var) -> mb.Var:
    picked = mb.gather(x=x, indices=np.array([[0, 1], [3, 2]], np.int32), axis=0)
    hot = mb.one_hot(indices=np.array([0, 2], np.int32), one_hot_vector_size=5, on_value=1.0, off_value=0.0)
    return mb.reduce_sum(x=mb.add(x=mb.reduce_sum(x=picked), y=mb.reduce_sum(x=hot)))


Program = tuple[Callable[..., Any], dict[str, Any], Any]
OLD, NEW = ct.target.iOS16, ct.target.iOS18
PROGRAMS: dict[str, Program] = {
    "affine": (
        lambda x: mb.affine(
            x=x, transform_matrix=normal((1, 6)), output_height=5, output_width=3, sampling_mode="bilinear",
            padding_mode="constant", padding_value=0.0, coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        ), X, NEW,
    ),
    "boxes": (_boxes, PAIR, OLD),
    "conv": (
        lambda x: mb.conv(
            x=x, weight=normal((3, 2, 3, 3)), pad_type="custom", pad=[1, 1, 2, 2], strides=[1, 2], dilations=[1, 1]
        ), X, NEW,
    ),
    "conv same": (
        lambda x: mb.conv(x=x, weight=normal((3, 2, 3, 3)), pad_type="same", dilations=[2, 2]), X, NEW,
    ),
    "conv_transpose": (
        lambda x: mb.conv_transpose(x=x, weight=normal((2, 3, 3, 3)), strides=[2, 2], pad_type="valid"), X, NEW,
    ),
    "counted": (_counted, N, NEW),
    "crop_resize": (
        lambda x: mb.crop_resize(
            x=x, boxes=np.array([[0, 0, 1, 1]], np.float32), box_indices=np.array([0], np.int32), target_height=3,
            target_width=2, normalized_coordinates=True, sampling_mode="DEFAULT",
        ), X, NEW,
    ),
    "filled": (_filled, N, NEW),
    "filled by a constant": (lambda x: mb.add(x=mb.reduce_sum(x=mb.fill(shape=[2, 3], value=2.0)), y=x), X, NEW),
    "listed": (_listed, N, NEW),
    "looked up": (_looked_up, PAIR, NEW),
    "looped": (_looped, N, NEW),
    "outer": (_outer, PAIR, NEW),
    "padded": (lambda x: mb.pad(x=x, pad=[1, 1, 2, 2], mode="constant", constant_val=1.0), X, NEW),
    "pooled": (lambda x: mb.avg_pool(x=x, kernel_sizes=[2, 3], strides=[1, 1], pad_type="same"), X, NEW),
    "random": (lambda x: mb.add(x=mb.reduce_sum(x=mb.random_uniform(shape=[3, 2], seed=1)), y=x), X, NEW),
    "resized": (
        lambda x: mb.resize_bilinear(x=x, target_size_height=9, target_size_width=2, sampling_mode="DEFAULT"), X, NEW,
    ),
    "resize": (
        lambda x: mb.resize(
            x=x, shape=[5, 7], resized_dims=np.uint32(2), interpolation_mode="LINEAR", sampling_mode="DEFAULT"
        ), X, NEW,
    ),
    "state": (
        lambda x, s: mb.coreml_update_state(state=s, value=mb.mul(x=mb.read_state(input=s), y=np.float16(2))), X, NEW,
    ),
    "tiled": (lambda x: mb.tile(x=x, reps=[1, 2, 1, 3]), X, NEW),
    "upsampled": (
        lambda x: mb.upsample_nearest_neighbor(x=x, scale_factor_height=2.0, scale_factor_width=3.0), X, NEW,
    ),
    "windows": (lambda x: mb.sliding_windows(x=x, axis=3, size=2, stride=1), X, NEW),
}  # fmt: skip


def save_all(folder: Path) -> list[Path]:
    """Saves every program as a package."""
    states = {"s": ((2, 3), "float16")}
    return [
        save(folder, build, inputs, states if name == "state" else None, target, name.replace(" ", "-"))
        for name, (build, inputs, target) in PROGRAMS.items()
    ]
