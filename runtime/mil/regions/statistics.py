"""Pools, reductions and normalizations as ONNX nodes."""

# ruff: noqa: D103 - each function is the op of its name, written in ONNX's ops

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from satchel.runtime.mil.ops.base import Ints
from satchel.runtime.mil.regions.elementwise import binary, plus, square
from satchel.runtime.mil.regions.operands import Graph, Operand, Unsupported, constant_of, reshaped
from satchel.runtime.mil.regions.products import windows


def max_pool(
    g: Graph,
    x: Operand,
    *,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Operand:
    return _pool(g, "MaxPool", x, kernel_sizes, strides, pad_type, pad, ceil_mode)


def avg_pool(
    g: Graph,
    x: Operand,
    *,
    kernel_sizes: Ints,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Operand:
    counted = int(not exclude_padding_from_average)
    return _pool(g, "AveragePool", x, kernel_sizes, strides, pad_type, pad, ceil_mode, count_include_pad=counted)


def _pool(
    g: Graph,
    op: str,
    x: Operand,
    kernel: Ints,
    strides: Ints | None,
    pad_type: str,
    pad: Ints | None,
    ceil_mode: bool,
    **more: Any,
) -> Operand:
    strides, ones = strides or (1,) * len(kernel), (1,) * len(kernel)
    pads, space = windows(x, kernel, strides, ones, pad_type, pad)
    if ceil_mode or any(p >= k for p, k in zip(pads, kernel * 2, strict=True)):
        raise Unsupported  # the formats differ
    return g.add(op, x, shape=(*x.shape[:2], *space), kernel_shape=kernel, strides=strides, pads=pads, **more)


def reduction(op: str) -> Callable[..., Operand]:
    """A reduction that ONNX has too."""

    def lower(g: Graph, x: Operand, *, axes: Ints | None = None, keep_dims: bool = False) -> Operand:
        over = tuple(range(x.rank)) if axes is None else axes
        return _reduced(g, op, x, over, keep_dims)

    return lower


def _reduced(g: Graph, op: str, x: Operand, axes: Ints, keep: bool = True) -> Operand:
    over = {a % x.rank for a in axes}
    if not over:
        raise Unsupported
    places = x.axes()
    x = x if places is not None else g.fit(x, x.shape)
    places = places if places is not None else {i: i for i in range(x.rank)}
    laid = sorted(places[i] for i in over if i in places)
    shape = tuple(1 if i in over else n for i, n in enumerate(x.shape) if keep or i not in over)
    if not laid:  # all of length 1
        return g.add(op, x, g.constant(sorted(over)), shape=shape, keepdims=int(keep))
    layout = tuple(1 if i in laid else n for i, n in enumerate(x.layout))
    return g.laid(op, x, g.constant(laid), shape=shape, layout=layout, keepdims=1)


def layer_norm(
    g: Graph,
    x: Operand,
    gamma: Operand | None = None,
    beta: Operand | None = None,
    *,
    axes: Ints | None = None,
    epsilon: float = 1e-5,
) -> Operand:
    over = tuple(sorted(a % x.rank for a in axes)) if axes is not None else tuple(range(x.rank))
    if over == tuple(range(over[0], x.rank)):
        if gamma is None:
            gamma = g.constant(np.ones(x.shape[over[0] :], np.float32))
        return g.add("LayerNormalization", x, gamma, beta, axis=over[0], epsilon=epsilon)
    centred = binary("Sub")(g, x, _reduced(g, "ReduceMean", x, over))
    variance = _reduced(g, "ReduceMean", square(g, centred), over)
    y = binary("Div")(g, centred, g.laid("Sqrt", plus(g, variance, epsilon)))
    shape = tuple(x.shape[i] if i in over else 1 for i in range(x.rank))
    y = y if gamma is None else binary("Mul")(g, y, reshaped(gamma, shape))
    return y if beta is None else binary("Add")(g, y, reshaped(beta, shape))


def batch_norm(
    g: Graph,
    x: Operand,
    mean: Operand,
    variance: Operand,
    gamma: Operand | None = None,
    beta: Operand | None = None,
    *,
    epsilon: float = 1e-5,
) -> Operand:
    centre, spread = constant_of(mean), constant_of(variance)
    scale = np.ones_like(centre) if gamma is None else constant_of(gamma)
    shift = np.zeros_like(centre) if beta is None else constant_of(beta)
    values = [g.constant(np.ascontiguousarray(v)) for v in (scale, shift, centre, spread)]
    return g.add("BatchNormalization", x, *values, epsilon=epsilon)


LOWERINGS: dict[str, Callable[..., Any]] = {
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "max_pool": max_pool,
    "reduce_max": reduction("ReduceMax"),
    "reduce_mean": reduction("ReduceMean"),
    "reduce_min": reduction("ReduceMin"),
    "reduce_sum": reduction("ReduceSum"),
    "reduce_sum_square": reduction("ReduceSumSquare"),
}
