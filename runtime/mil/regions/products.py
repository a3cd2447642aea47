"""Matrix products and convolutions as ONNX nodes."""

# ruff: noqa: D103 - each function is the op of its name, written in ONNX's ops

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from satchel.runtime.mil.ops.base import Ints
from satchel.runtime.mil.ops.contraction import ATTENTION_PRODUCTS, canonical
from satchel.runtime.mil.ops.convolution import padding
from satchel.runtime.mil.regions.elementwise import binary, softmax
from satchel.runtime.mil.regions.movement import concat, swapped
from satchel.runtime.mil.regions.onnx_proto import CONTRIB
from satchel.runtime.mil.regions.operands import Graph, Operand, Unsupported, broadcast, constant_of, reshaped

WIDENED = 1 << 18  # elements of a weight in fp16 that are widened at a time: 1 MB


def by_rows(
    g: Graph, weight: Operand, bias: Operand | None, apply: Callable[[Operand, Operand | None], Operand]
) -> Operand:
    """`apply` to a weight and its bias; where the weight is kept in fp16, to some rows at a time, joined along axis 1.

    So few rows are widened at a time that their fp32 values are still in the cache when they are used.
    """
    if not weight.is_half or weight.constant is None:
        return apply(weight, bias)
    step, parts = max(1, WIDENED * len(weight.constant) // weight.constant.size), []
    for start in range(0, len(weight.constant), step):
        rows = slice(start, start + step)
        part = None if bias is None else g.constant(constant_of(bias)[rows])
        parts.append(apply(g.widened(g.bind(weight.constant[rows])), part))
    return parts[0] if len(parts) == 1 else concat(g, *parts, axis=1)


def linear(g: Graph, x: Operand, weight: Operand, bias: Operand | None = None) -> Operand:
    rows, inner = math.prod(x.shape[:-1]), weight.shape[1]
    if inner != x.shape[-1]:
        raise Unsupported
    flat = reshaped(x, (rows, inner))
    y = by_rows(g, weight, bias, lambda w, b: g.add("Gemm", flat, w, b, shape=(rows, w.shape[0]), transB=1))
    return reshaped(y, (*x.shape[:-1], weight.shape[0]))


def product(g: Graph, x: Operand, y: Operand, transpose_y: bool = False, scale: float = 1.0) -> Operand:
    """Scale * x @ y, or y with its last two axes exchanged."""
    if x.rank < 2 or y.rank < 2:
        raise Unsupported
    inner, columns = (y.shape[-1], y.shape[-2]) if transpose_y else y.shape[-2:]
    if inner != x.shape[-1]:
        raise Unsupported
    batch = broadcast(x.shape[:-2], y.shape[:-2])
    shape = layout = (*batch, x.shape[-2], columns)
    if math.prod(batch) == 1:
        x, y, layout = g.fit(x, x.shape[-2:]), g.fit(y, y.shape[-2:]), shape[-2:]
    else:
        x, y = g.fit(x, x.shape), g.fit(y, y.shape)
    if not transpose_y and scale == 1.0:
        return g.laid("MatMul", x, y, shape=shape, layout=layout)
    more: dict[str, Any] = {"domain": CONTRIB, "transB": int(transpose_y), "alpha": scale}
    return g.laid("FusedMatMul", x, y, shape=shape, layout=layout, **more)


def matmul(g: Graph, x: Operand, y: Operand, *, transpose_x: bool = False, transpose_y: bool = False) -> Operand:
    return product(g, swapped(g, x, -1, -2) if transpose_x else x, y, transpose_y)


def einsum(g: Graph, x: Operand, y: Operand, *, equation: str) -> Operand:
    """nchw,nwhu->nchu as MatMul; other equations stay with numpy, which orders them well."""
    if canonical(equation) not in ATTENTION_PRODUCTS:
        raise Unsupported
    if x.shape[-2] == 1 and y.shape[-2] == 1:
        left, right = (reshaped(v, (*v.shape[:-2], v.shape[-1])) for v in (x, y))
        found = product(g, left, right)
        return reshaped(found, (*found.shape[:-1], 1, found.shape[-1]))
    return swapped(g, product(g, swapped(g, x, -3, -2), swapped(g, y, -3, -2)), -3, -2)


def scaled_dot_product_attention(
    g: Graph, query: Operand, key: Operand, value: Operand, attn_mask: Operand | None = None
) -> Operand:
    scores = product(g, query, key, transpose_y=True, scale=1 / math.sqrt(query.shape[-1]))
    if attn_mask is not None:
        scores = binary("Add")(g, scores, attn_mask)
    return product(g, softmax(g, scores), value)


def conv(
    g: Graph,
    x: Operand,
    weight: Operand,
    bias: Operand | None = None,
    *,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Operand:
    ones, kernel = (1,) * (x.rank - 2), weight.shape[2:]
    strides, dilations = strides or ones, dilations or ones
    if x.shape[1] != weight.shape[1] * groups:
        raise Unsupported
    pads, space = windows(x, kernel, strides, dilations, pad_type, pad)
    if math.prod(x.shape[2:]) * math.prod(kernel) == 1 and groups == 1 and not any(pads):  # a matrix for one position
        flat, matrix = reshaped(x, x.shape[:2]), reshaped(weight, weight.shape[:2])
        return reshaped(linear(g, flat, matrix, bias), (x.shape[0], weight.shape[0], *space))

    def apply(w: Operand, b: Operand | None) -> Operand:
        return g.add(
            "Conv", x, g.embed(w), b, shape=(x.shape[0], w.shape[0], *space),
            kernel_shape=kernel, strides=strides, pads=pads, dilations=dilations, group=groups,
        )  # fmt: skip

    return by_rows(g, weight, bias, apply) if groups == 1 else apply(g.widened(weight), bias)


def windows(
    x: Operand, kernel: Ints, strides: Ints, dilations: Ints, pad_type: str, pad: Ints | None
) -> tuple[Ints, Ints]:
    """(paddings at all beginnings, then at all ends; how many windows there are along each axis)."""
    dilated = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    pairs = padding(x.shape[2:], dilated, strides, pad_type, pad)
    sizes = zip(x.shape[2:], pairs, dilated, strides, strict=True)
    space = tuple((n + before + after - k) // s + 1 for n, (before, after), k, s in sizes)
    return (*(before for before, _ in pairs), *(after for _, after in pairs)), space


LOWERINGS: dict[str, Callable[..., Any]] = {
    "conv": conv,
    "einsum": einsum,
    "linear": linear,
    "matmul": matmul,
    "scaled_dot_product_attention": scaled_dot_product_attention,
}
