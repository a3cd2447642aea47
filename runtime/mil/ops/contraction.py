"""Matrix products: linear, matmul, einsum, attention. Products are accumulated in fp32, the result rounded once."""

from __future__ import annotations

import math

import numpy as np

from satchel.runtime.mil.ops.activation import softmax
from satchel.runtime.mil.ops.base import Array, Op, contract


def _for_blas(x: Array) -> Array:
    """X, copied if its last two axes are laid out so that numpy would not use BLAS."""
    rows, columns = x.strides[-2:]
    item = x.itemsize
    plain = columns == item and rows >= item * x.shape[-1] and rows % item == 0
    turned = rows == item and columns >= item * x.shape[-2] and columns % item == 0
    return x if plain or turned else np.ascontiguousarray(x)


def product(x: Array, y: Array) -> Array:
    """X @ y for any layout."""
    if x.ndim < 2 or y.ndim < 2:
        return np.matmul(x, y)
    return np.matmul(_for_blas(x), _for_blas(y))


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """X times the transposed weight [out, in], plus bias."""
    rows = x.size // weight.shape[1]
    # For one token a matrix times a vector: it reads the weight once, row by row.
    y = np.dot(weight, x.reshape(-1)) if rows == 1 else np.dot(x.reshape(rows, -1), weight.T)
    y = y.reshape((*x.shape[:-1], weight.shape[0]))
    return y if bias is None else y + bias


def matmul(x: Array, y: Array, *, transpose_x: bool = False, transpose_y: bool = False) -> Array:
    """X @ y, either one transposed in its last two axes if asked."""
    x = x.swapaxes(-1, -2) if transpose_x and x.ndim > 1 else x
    y = y.swapaxes(-1, -2) if transpose_y and y.ndim > 1 else y
    return product(x, y)


def einsum(x: Array, y: Array, *, equation: str) -> Array:
    """nchw,nwhu->nchu (or without n): a product for every n and h. Other equations go to numpy's own einsum."""
    if canonical(equation) not in ATTENTION_PRODUCTS:
        return np.einsum(equation, x, y, optimize=True)
    if x.shape[-2] == 1 and y.shape[-2] == 1:  # no h: the product as it lies
        return product(x[..., 0, :], y[..., 0, :])[..., None, :]
    return product(x.swapaxes(-3, -2), y.swapaxes(-3, -2)).swapaxes(-3, -2)


ATTENTION_PRODUCTS = (("abcd", "adce", "abce"), ("abc", "cbd", "abd"))
_CANONICAL: dict[str, tuple[str, str, str]] = {}


def canonical(equation: str) -> tuple[str, str, str]:
    """The equation's three parts with letters renamed in order of appearance."""
    if equation not in _CANONICAL:
        names: dict[str, str] = {}
        plain = "".join(
            names.setdefault(c, chr(ord("a") + len(names))) if c.isalpha() else c for c in equation if c != " "
        )
        inputs, _, out = plain.partition("->")
        left, _, right = inputs.partition(",")
        _CANONICAL[equation] = (left, right, out)
    return _CANONICAL[equation]


def einsum_values(*values: Array, equation: str) -> Array:
    """Einsum as the op has it, over a list of two arrays."""
    return einsum(values[0], values[1], equation=equation)


def scaled_dot_product_attention(query: Array, key: Array, value: Array, attn_mask: Array | None = None) -> Array:
    """softmax(query key^T / sqrt(E) + mask) value; a bool mask says which positions take part."""
    scores = product(query, key.swapaxes(-1, -2)) * np.float32(1 / math.sqrt(query.shape[-1]))
    if attn_mask is not None and attn_mask.dtype == bool:
        scores = np.where(attn_mask, scores, np.float32(-np.inf))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return product(softmax(scores), value)


OPS: dict[str, Op] = {
    "einsum": contract(einsum_values),
    "linear": contract(linear),
    "matmul": contract(matmul),
    "scaled_dot_product_attention": contract(scaled_dot_product_attention),
}
