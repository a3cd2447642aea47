"""Every op that can be handed to onnxruntime, there and in numpy; the numpy kernels have oracles of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.mil.regions import choose
from satchel.runtime.mil.regions.lowering import LOWERINGS
from satchel.runtime.mil.regions.session import Session

SEEDS = 4
Case = Callable[["Draw", Any, Any], Any]  # of x and y, both of Draw.shape and positive; gives a value or several


class Draw:
    """Random attributes.

    Attributes:
        shape: of x and y.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.shape = tuple(int(n) for n in self.random.integers(2, 6, 4))

    def integer(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high + 1))

    def axis(self) -> int:
        return self.integer(-4, 3)

    def axes(self) -> list[int]:
        return sorted(self.random.permutation(4)[: self.integer(1, 4)].tolist())

    def weight(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape).astype(np.float32)

    def yes(self) -> bool:
        return bool(self.random.integers(2))


def unary(name: str, **attributes: Any) -> Case:
    return lambda d, x, y: getattr(mb, name)(x=x, **attributes)


def signed(name: str, **attributes: Any) -> Case:
    """An op on values of both signs."""
    return lambda d, x, y: getattr(mb, name)(x=mb.log(x=x), **attributes)


def binary(name: str) -> Case:
    """With a tensor of the same shape, one of fewer axes, and a number."""

    def build(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
        op, row = getattr(mb, name), np.abs(d.weight(d.shape[3])) + np.float32(0.5)
        return [op(x=x, y=y), op(x=x, y=row), op(x=x, y=np.float32(1.5))]

    return build


def reduction(name: str) -> Case:
    return lambda d, x, y: getattr(mb, name)(x=x, axes=d.axes(), keep_dims=d.yes())


def conv(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    channels, kernel = d.shape[1], [d.integer(1, 2), d.integer(1, 2)]
    groups = channels if d.yes() else 1
    w, b = d.weight(2 * channels, channels // groups, *kernel), d.weight(2 * channels)
    common = {"weight": w, "groups": groups, "strides": [d.integer(1, 2), 1]}
    return [
        mb.conv(x=x, bias=b, pad_type="custom", pad=[d.integer(0, 2) for _ in range(4)], dilations=[1, 2], **common),
        mb.conv(x=x, pad_type="same", **common),
        mb.conv(x=x, pad_type="same_lower", **common),
    ]


def pool(name: str, **attributes: Any) -> Case:
    return lambda d, x, y: getattr(mb, name)(
        x=x, kernel_sizes=[2, 2], strides=[d.integer(1, 2)] * 2, pad_type="custom",
        pad=[d.integer(0, 1) for _ in range(4)], **attributes,
    )  # fmt: skip


def linear(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    w = d.weight(7, d.shape[3])
    return [mb.linear(x=x, weight=w, bias=d.weight(7)), mb.linear(x=mb.reduce_max(x=x, axes=[0, 1, 2]), weight=w)]


def matmul(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    return [mb.matmul(x=x, y=y, transpose_x=t, transpose_y=not t) for t in (True, False)]


def einsum(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    turned = mb.transpose(x=y, perm=[0, 3, 2, 1])
    flat, narrow = (mb.reduce_sum(x=v, axes=[2], keep_dims=True) for v in (x, turned))
    return [mb.einsum(values=[a, b], equation="nchw,nwhu->nchu") for a, b in ((x, turned), (flat, narrow))]


def attention(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    mask = d.weight(d.shape[2], d.shape[2])
    plain = mb.scaled_dot_product_attention(query=x, key=y, value=x)
    return [plain, mb.scaled_dot_product_attention(query=x, key=y, value=x, attn_mask=mask)]


def layer_norm(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    last, middle = d.shape[3], d.shape[1]
    return [
        mb.layer_norm(x=x, axes=[-1], gamma=d.weight(last), beta=d.weight(last), epsilon=1e-3),
        mb.layer_norm(x=x, axes=[-2, -1]),
        mb.layer_norm(x=x, axes=[1], gamma=d.weight(middle), beta=d.weight(middle)),
    ]


def batch_norm(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    mean, gamma, beta = (d.weight(d.shape[1]) for _ in range(3))
    common = {"mean": mean, "variance": np.abs(gamma) + np.float32(0.1)}
    return [mb.batch_norm(x=x, gamma=gamma, beta=beta, epsilon=1e-3, **common), mb.batch_norm(x=x, **common)]


def slices(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    begin = [d.integer(-n, n - 1) for n in d.shape]
    first = [b % n for b, n in zip(begin, d.shape, strict=True)]
    end = [d.integer(b + 1, n) for b, n in zip(first, d.shape, strict=True)]
    masks = [[d.yes() for _ in range(4)] for _ in range(3)]
    stride = [d.integer(1, 2) for _ in range(4)]
    masked = {"begin_mask": masks[0], "end_mask": masks[1], "squeeze_mask": [*masks[2][:3], False]}
    return [
        mb.slice_by_index(x=x, begin=begin, end=end, stride=stride, **masked),
        mb.slice_by_index(x=x, begin=first, end=end),
    ]


def slice_by_size(d: Draw, x: mb.Var, y: mb.Var) -> mb.Var:
    begin = [d.integer(0, n - 1) for n in d.shape]
    return mb.slice_by_size(
        x=x, begin=begin, size=[-1 if d.yes() else d.integer(1, n - b) for n, b in zip(d.shape, begin, strict=True)]
    )


def reshape(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    a, b, c, e = d.shape
    there = mb.reshape(x=x, shape=[a * b, -1])
    return [there, mb.reshape(x=there, shape=[a, b, c, e]), mb.add(x=there, y=mb.reshape(x=y, shape=[a * b, c * e]))]


def split(d: Draw, x: mb.Var, y: mb.Var) -> list[mb.Var]:
    axis = d.axis()
    sizes = [1, d.shape[axis] - 1]
    parts = mb.split(x=x, split_sizes=sizes, axis=axis)
    return [*parts, *mb.split(x=y, num_splits=d.shape[axis], axis=axis)]


def select(d: Draw, x: mb.Var, y: mb.Var) -> mb.Var:
    return mb.select(cond=np.asarray(d.random.integers(0, 2, d.shape[2:]), bool), a=x, b=y)


CASES: dict[str, Case] = {
    "abs": signed("abs"),
    "add": binary("add"),
    "avg_pool": lambda d, x, y: [pool("avg_pool", exclude_padding_from_average=e)(d, x, y) for e in (True, False)],
    "batch_norm": batch_norm,
    "ceil": unary("ceil"),
    "clip": signed("clip", alpha=-0.3, beta=0.4),
    "concat": lambda d, x, y: mb.concat(values=[x, y, x], axis=d.axis()),
    "conv": conv,
    "cos": unary("cos"),
    "einsum": einsum,
    "elu": signed("elu", alpha=0.7),
    "erf": signed("erf"),
    "exp": signed("exp"),
    "expand_dims": lambda d, x, y: mb.expand_dims(x=mb.reduce_sum(x=x, axes=[0, 2]), axes=[0, -1]),
    "floor": signed("floor"),
    "gather": lambda d, x, y: mb.gather(x=x, indices=np.int32([[0, 1], [1, 0]]), axis=d.axis()),
    "gelu": lambda d, x, y: [
        mb.gelu(x=mb.log(x=x), mode=m) for m in ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION")
    ],
    "identity": unary("identity"),
    "inverse": unary("inverse", epsilon=1e-3),
    "layer_norm": layer_norm,
    "leaky_relu": signed("leaky_relu", alpha=0.1),
    "linear": linear,
    "linear_activation": signed("linear_activation", alpha=0.3, beta=0.2),
    "log": lambda d, x, y: [mb.log(x=x), mb.log(x=x, epsilon=0.5)],
    "matmul": matmul,
    "max_pool": pool("max_pool"),
    "maximum": binary("maximum"),
    "minimum": binary("minimum"),
    "mul": binary("mul"),
    "pad": lambda d, x, y: mb.pad(x=x, pad=[d.integer(0, 2) for _ in range(4)], mode="constant", constant_val=0.5),
    "pow": binary("pow"),
    "prelu": lambda d, x, y: mb.prelu(x=mb.log(x=x), alpha=np.abs(d.weight(d.shape[1]))),
    "real_div": binary("real_div"),
    "reduce_max": reduction("reduce_max"),
    "reduce_mean": reduction("reduce_mean"),
    "reduce_min": reduction("reduce_min"),
    "reduce_sum": reduction("reduce_sum"),
    "reduce_sum_square": reduction("reduce_sum_square"),
    "relu": signed("relu"),
    "relu6": lambda d, x, y: mb.relu6(x=mb.mul(x=mb.log(x=x), y=np.float32(9))),
    "reshape": reshape,
    "rsqrt": lambda d, x, y: [mb.rsqrt(x=x), mb.rsqrt(x=x, epsilon=0.5)],
    "scaled_dot_product_attention": attention,
    "scaled_tanh": signed("scaled_tanh", alpha=0.3, beta=2.0),
    "select": select,
    "sigmoid": lambda d, x, y: mb.log(x=mb.sigmoid(x=mb.mul(x=mb.log(x=x), y=np.float32(20)))),
    "sigmoid_hard": signed("sigmoid_hard", alpha=0.3, beta=0.4),
    "silu": lambda d, x, y: mb.silu(x=mb.mul(x=mb.log(x=x), y=np.float32(20))),
    "sin": unary("sin"),
    "slice_by_index": slices,
    "slice_by_size": slice_by_size,
    "softmax": lambda d, x, y: mb.softmax(x=x, axis=d.axis()),
    "softplus": signed("softplus"),
    "softsign": signed("softsign"),
    "split": split,
    "sqrt": unary("sqrt"),
    "square": signed("square"),
    "squeeze": lambda d, x, y: mb.squeeze(x=mb.reduce_sum(x=x, axes=[0, 2], keep_dims=True), axes=[0, -2]),
    "stack": lambda d, x, y: mb.stack(values=[x, y], axis=d.axis()),
    "sub": binary("sub"),
    "tanh": signed("tanh"),
    "threshold": signed("threshold", alpha=0.1),
    "transpose": lambda d, x, y: mb.transpose(
        x=mb.reduce_sum(x=x, axes=[d.integer(0, 3)], keep_dims=True), perm=d.random.permutation(4).tolist()
    ),
}


def test_every_lowering_has_a_case() -> None:
    assert sorted(CASES) == sorted(LOWERINGS)


@pytest.mark.parametrize("op", CASES)
def test_onnxruntime_agrees_with_numpy(op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "WORTH", 0)
    for seed in range(SEEDS):
        compare(op, seed, tmp_path / str(seed))


def compare(op: str, seed: int, folder: Path) -> None:
    shape = Draw(seed).shape

    def build(x: mb.Var, y: mb.Var) -> Any:
        # A view of an input would stay with numpy, so the inputs are computed with first.
        return CASES[op](Draw(seed), mb.mul(x=x, y=np.float32(1.25)), mb.add(x=y, y=np.float32(0.25)))

    path = save(folder, build, {"x": (shape, "float32"), "y": (shape, "float32")})
    auto, plain = mil.load(path, threads=1), mil.load(path, kernels="numpy")
    steps = auto.executable(threads=1).steps
    assert [s.op for s in steps] == ["onnxruntime"], "the op was not handed over"
    session = steps[0].kernel
    assert isinstance(session, Session)
    onnx.checker.check_model(onnx.load_from_string(session.model), full_check=True)
    inputs = {n: np.abs(normal(shape, i)) + np.float32(0.1) for i, n in enumerate("xy")}
    found, want = auto.run(inputs), plain.run(inputs)
    assert list(found) == list(want)
    for name, value in want.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
