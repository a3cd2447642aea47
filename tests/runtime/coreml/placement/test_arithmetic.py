"""Multiply-accumulates as torch's own counter counts them on the same products, and by hand where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mil_programs import mb, save
from rule_programs import codes, dense, palette, scaled
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from satchel.runtime.coreml.placement.arithmetic import is_dynamic, multiply_accumulates, weight_extents, work
from satchel.runtime.coreml.survey import FunctionSurvey, survey
from satchel.runtime.mil.package import open_package

F16 = "float16"


def surveyed(folder: Path, body: Any, inputs: Any) -> FunctionSurvey:
    return survey(open_package(save(folder, body, inputs)), "main")


def counted(folder: Path, body: Any, inputs: Any) -> int:
    function = surveyed(folder, body, inputs)
    return sum(multiply_accumulates(function, op) for op in function.ops if op.computes)


def randn(*shape: int) -> torch.Tensor:
    return torch.zeros(shape)


PRODUCTS: dict[str, tuple[Any, dict[str, tuple[int, ...]], Any]] = {
    "conv": (
        lambda x: mb.conv(x=x, weight=dense(12, 8, 3, 5), strides=[2, 1], pad_type="custom", pad=[1, 1, 2, 2]),
        {"x": (2, 8, 9, 11)},
        lambda: functional.conv2d(randn(2, 8, 9, 11), randn(12, 8, 3, 5), stride=(2, 1), padding=(1, 2)),
    ),
    "grouped conv": (
        lambda x: mb.conv(x=x, weight=dense(12, 2, 3, 3), groups=4, dilations=[2, 2]),
        {"x": (1, 8, 9, 9)},
        lambda: functional.conv2d(randn(1, 8, 9, 9), randn(12, 2, 3, 3), groups=4, dilation=2),
    ),
    "conv of one axis": (
        lambda x: mb.conv(x=x, weight=dense(6, 4, 3)),
        {"x": (2, 4, 10)},
        lambda: functional.conv1d(randn(2, 4, 10), randn(6, 4, 3)),
    ),
    "conv_transpose": (
        lambda x: mb.conv_transpose(x=x, weight=dense(8, 3, 4, 4), groups=2, strides=[2, 2]),
        {"x": (2, 8, 5, 6)},
        lambda: functional.conv_transpose2d(randn(2, 8, 5, 6), randn(8, 3, 4, 4), groups=2, stride=2),
    ),
    "linear": (
        lambda x: mb.linear(x=x, weight=dense(7, 16), bias=dense(7)),
        {"x": (3, 5, 16)},
        lambda: functional.linear(randn(3, 5, 16), randn(7, 16)),
    ),
    "matmul": (
        lambda x, y: mb.matmul(x=x, y=y),
        {"x": (2, 3, 4, 5), "y": (2, 3, 5, 6)},
        lambda: randn(2, 3, 4, 5) @ randn(2, 3, 5, 6),
    ),
    "matmul, transposed": (
        lambda x, y: mb.matmul(x=x, y=y, transpose_x=True, transpose_y=True),
        {"x": (3, 5, 4), "y": (3, 6, 5)},
        lambda: randn(3, 5, 4).mT @ randn(3, 6, 5).mT,
    ),
    "einsum": (
        lambda x, y: mb.einsum(values=(x, y), equation="bhcq,bqck->bhck"),
        {"x": (1, 2, 3, 8), "y": (1, 8, 3, 5)},
        lambda: torch.einsum("bhcq,bqck->bhck", randn(1, 2, 3, 8), randn(1, 8, 3, 5)),
    ),
    "attention": (
        lambda x, y, z: mb.scaled_dot_product_attention(query=x, key=y, value=z),
        {"x": (1, 4, 3, 8), "y": (1, 4, 7, 8), "z": (1, 4, 7, 16)},
        lambda: torch.softmax(randn(1, 4, 3, 8) @ randn(1, 4, 7, 8).mT, -1) @ randn(1, 4, 7, 16),
    ),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_as_many_as_torch_counts(product: str, tmp_path: Path) -> None:
    body, shapes, twin = PRODUCTS[product]
    with FlopCounterMode(display=False) as counter:
        twin()
    found = counted(tmp_path, body, {name: (shape, F16) for name, shape in shapes.items()})
    assert 2 * found == counter.get_total_flops() > 0


def test_a_network_of_several_layers(tmp_path: Path) -> None:
    weights = [(32, 16, 3, 3), (32, 1, 3, 3), (64, 32, 1, 1)]

    def body(x: Any) -> Any:
        for shape in weights:
            groups = 32 if shape[1] == 1 else 1
            x = mb.relu(x=mb.conv(x=x, weight=dense(*shape), groups=groups, pad_type="same"))
        return mb.linear(x=mb.reduce_mean(x=x, axes=[2, 3]), weight=dense(10, 64))

    def twin() -> torch.Tensor:
        x = randn(1, 16, 12, 12)
        for shape in weights:
            x = functional.conv2d(x, randn(*shape), groups=32 if shape[1] == 1 else 1, padding="same").relu()
        return functional.linear(x.mean((2, 3)), randn(10, 64))

    with FlopCounterMode(display=False) as counter:
        twin()
    assert 2 * counted(tmp_path, body, {"x": ((1, 16, 12, 12), F16)}) == counter.get_total_flops()


def test_a_recurrent_layer_reads_every_weight_for_each_place(tmp_path: Path) -> None:
    steps, rows, inputs, hidden = 5, 2, 3, 4

    def body(x: Any) -> Any:
        zeros = np.zeros((rows, hidden), np.float32)
        ih, hh = np.ones((4 * hidden, inputs), np.float32), np.ones((4 * hidden, hidden), np.float32)
        return mb.lstm(x=x, initial_h=zeros, initial_c=zeros, weight_ih=ih, weight_hh=hh)[0]

    found = counted(tmp_path, body, {"x": ((steps, rows, inputs), "float32")})
    assert found == steps * rows * 4 * hidden * (inputs + hidden)


def test_work_of_what_is_no_product(tmp_path: Path) -> None:
    def body(x: Any) -> list[Any]:
        turned = mb.transpose(x=x, perm=[1, 0], name="t")
        return [mb.exp(x=turned, name="e"), mb.reduce_max(x=x, axes=[0, 1], name="r"), mb.topk(x=x, k=2, name="k")[0]]

    function = surveyed(tmp_path, body, {"x": ((6, 8), F16)})
    found = {op.name: work(function, op) for op in function.ops if op.computes}
    assert (found["t"], found["e"], found["r"], found["k"]) == (0, 48, 48, 24)
    assert not any(multiply_accumulates(function, op) or is_dynamic(function, op) for op in function.ops)


def test_weights_behind_what_expands_them(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        y = mb.conv(x=x, weight=palette((64, 16, 1, 1)), bias=dense(64), name="lut")
        y = mb.conv(x=y, weight=scaled(codes((32, 64, 1, 1), "int4", 7), (32, 1, 1, 1)), name="int4")
        return mb.conv(x=y, weight=dense(16, 32, 1, 1), name="dense")

    function = surveyed(tmp_path, body, {"x": ((1, 16, 1, 8), F16)})
    sizes = {op.name: sum(e.size for e in weight_extents(function, op)) for op in function.ops if op.computes}
    assert sizes == {"lut": 64 * 16 // 2 + 16 * 2 + 64 * 2, "int4": 32 * 64 // 2 + 32 * 2, "dense": 16 * 32 * 2}
