"""Functions of each element alone, activations and softmax as ONNX nodes, as exact as numpy's."""

# ruff: noqa: D103 - each function is the op of its name, written in ONNX's ops

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from satchel.runtime.mil.regions.movement import reshaped, transpose
from satchel.runtime.mil.regions.operands import Graph, Operand, Unsupported, broadcast, constant_of

FEW = 4096  # elements of a constant that may be copied into another shape


def same(op: str, **attributes: Any) -> Callable[..., Operand]:
    """An op of one argument that ONNX has too."""
    return lambda g, x: g.add(op, x, **attributes)


def binary(op: str) -> Callable[..., Operand]:
    """An op of two arguments that ONNX has too."""

    def lower(g: Graph, x: Operand, y: Operand) -> Operand:
        if x.source and y.source and x.shape == y.shape and x.source.shape == y.source.shape:
            return reshaped(g, g.add(op, x.source, y.source), x.shape)
        shape = broadcast(x.shape, y.shape)
        return g.add(op, _of_rank(g, x, len(shape)), _of_rank(g, y, len(shape)), shape=shape)

    return lower


def _of_rank(g: Graph, x: Operand, rank: int) -> Operand:
    """A constant with its missing axes: onnxruntime is 40 times slower where the ranks of two arguments differ."""
    if x.constant is None or x.rank == rank or x.constant.size > FEW:
        return x
    return g.constant(x.constant.reshape((1,) * (rank - x.rank) + x.shape))


def with_number(g: Graph, op: str, x: Operand, number: float) -> Operand:
    """Op(x, number)."""
    return g.add(op, x, g.constant(np.full((1,) * x.rank, number, np.float32)))


def scaled(op: str) -> Callable[..., Operand]:
    """An op whose only attribute is alpha, by the same name."""
    return lambda g, x, *, alpha: g.add(op, x, alpha=alpha)


def plus(g: Graph, x: Operand, number: float) -> Operand:
    """X + a number; x itself for 0."""
    return with_number(g, "Add", x, number) if number else x


def times(g: Graph, x: Operand, number: float) -> Operand:
    """X times a number."""
    return with_number(g, "Mul", x, number)


def square(g: Graph, x: Operand) -> Operand:
    return g.add("Mul", x, x)


def rsqrt(g: Graph, x: Operand, *, epsilon: float = 1e-12) -> Operand:
    return g.add("Reciprocal", g.add("Sqrt", plus(g, x, epsilon)))


def inverse(g: Graph, x: Operand, *, epsilon: float = 1e-4) -> Operand:
    return g.add("Reciprocal", plus(g, x, epsilon))


def log(g: Graph, x: Operand, *, epsilon: float = 1e-45) -> Operand:
    return g.add("Log", plus(g, x, epsilon))


def clip(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    if alpha >= beta:
        raise Unsupported  # an error in some opsets
    return g.add("Clip", x, g.constant(float(alpha)), g.constant(float(beta)))


def relu6(g: Graph, x: Operand) -> Operand:
    return clip(g, x, alpha=0.0, beta=6.0)


def threshold(g: Graph, x: Operand, *, alpha: float) -> Operand:
    return with_number(g, "Max", x, alpha)


def prelu(g: Graph, x: Operand, alpha: Operand) -> Operand:
    slopes = constant_of(alpha).reshape((-1,) + (1,) * (x.rank - 2))
    return g.add("PRelu", x, g.constant(slopes))


def sigmoid(g: Graph, x: Operand) -> Operand:
    # onnxruntime's Sigmoid ends at x = -18, and a logarithm may follow.
    power = g.add("Exp", g.add("Neg", with_number(g, "Max", x, -88.0)))
    return g.add("Reciprocal", plus(g, power, 1.0))


def silu(g: Graph, x: Operand) -> Operand:
    return g.add("Mul", x, g.add("Sigmoid", x))


def sigmoid_hard(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    return clip(g, linear_activation(g, x, alpha=alpha, beta=beta), alpha=0.0, beta=1.0)


def linear_activation(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    return plus(g, times(g, x, alpha), beta)


def scaled_tanh(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    return times(g, g.add("Tanh", times(g, x, beta)), alpha)


def gelu(g: Graph, x: Operand, *, mode: str = "EXACT") -> Operand:
    if mode == "SIGMOID_APPROXIMATION":
        return g.add("Mul", x, g.add("Sigmoid", times(g, x, 1.702)))
    return g.add("Gelu", x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def softmax(g: Graph, x: Operand, *, axis: int = -1) -> Operand:
    at = axis % x.rank
    if at == x.rank - 1:
        return g.add("Softmax", x, axis=-1)
    # onnxruntime's own way over other axes moves single elements.
    folded = (math.prod(x.shape[:at]), x.shape[at], math.prod(x.shape[at + 1 :]))
    turned = transpose(g, reshaped(g, x, folded), perm=(0, 2, 1))
    return reshaped(g, transpose(g, g.add("Softmax", turned, axis=-1), perm=(0, 2, 1)), x.shape)


def select(g: Graph, cond: Operand, a: Operand, b: Operand) -> Operand:
    return g.add("Where", cond, a, b, shape=broadcast(cond.shape, a.shape, b.shape))


LOWERINGS: dict[str, Callable[..., Any]] = {
    "abs": same("Abs"),
    "add": binary("Add"),
    "ceil": same("Ceil"),
    "clip": clip,
    "cos": same("Cos"),
    "elu": scaled("Elu"),
    "erf": same("Erf"),
    "exp": same("Exp"),
    "floor": same("Floor"),
    "gelu": gelu,
    "identity": same("Identity"),
    "inverse": inverse,
    "leaky_relu": scaled("LeakyRelu"),
    "linear_activation": linear_activation,
    "log": log,
    "maximum": binary("Max"),
    "minimum": binary("Min"),
    "mul": binary("Mul"),
    "pow": binary("Pow"),
    "prelu": prelu,
    "real_div": binary("Div"),
    "relu": same("Relu"),
    "relu6": relu6,
    "rsqrt": rsqrt,
    "scaled_tanh": scaled_tanh,
    "select": select,
    "sigmoid": sigmoid,
    "sigmoid_hard": sigmoid_hard,
    "silu": silu,
    "sin": same("Sin"),
    "softmax": softmax,
    "softplus": same("Softplus"),
    "softsign": same("Softsign"),
    "sqrt": same("Sqrt"),
    "square": square,
    "sub": binary("Sub"),
    "tanh": same("Tanh"),
    "threshold": threshold,
}
