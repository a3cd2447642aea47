"""Functions of each element alone, activations and softmax as ONNX nodes, as exact as numpy's."""

# ruff: noqa: D103 - each function is the op of its name, written in ONNX's ops

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from satchel.runtime.mil.regions.movement import transpose
from satchel.runtime.mil.regions.operands import Graph, Operand, Unsupported, constant_of, reshaped
from satchel.runtime.mil.regions.together import together


def same(op: str, **attributes: Any) -> Callable[..., Operand]:
    """An op of one argument that ONNX has too."""
    return lambda g, x: g.laid(op, x, **attributes)


def binary(op: str) -> Callable[..., Operand]:
    """An op of two arguments that ONNX has too."""

    def lower(g: Graph, x: Operand, y: Operand) -> Operand:
        operands, shape, layout = together(g, x, y)
        return g.laid(op, *operands, shape=shape, layout=layout)

    return lower


def with_number(g: Graph, op: str, x: Operand, number: float) -> Operand:
    """Op(x, number)."""
    return g.laid(op, x, g.constant(np.full((1,) * len(x.layout), number, np.float32)))


def scaled(op: str) -> Callable[..., Operand]:
    """An op whose only attribute is alpha, by the same name."""
    return lambda g, x, *, alpha: g.laid(op, x, alpha=alpha)


def plus(g: Graph, x: Operand, number: float) -> Operand:
    """X + a number; x itself for 0."""
    return with_number(g, "Add", x, number) if number else x


def times(g: Graph, x: Operand, number: float) -> Operand:
    """X times a number."""
    return with_number(g, "Mul", x, number)


def square(g: Graph, x: Operand) -> Operand:
    return g.laid("Mul", x, x)


def rsqrt(g: Graph, x: Operand, *, epsilon: float = 1e-12) -> Operand:
    return g.laid("Reciprocal", g.laid("Sqrt", plus(g, x, epsilon)))


def inverse(g: Graph, x: Operand, *, epsilon: float = 1e-4) -> Operand:
    return g.laid("Reciprocal", plus(g, x, epsilon))


def log(g: Graph, x: Operand, *, epsilon: float = 1e-45) -> Operand:
    return g.laid("Log", plus(g, x, epsilon))


def clip(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    if alpha >= beta:
        raise Unsupported  # an error in some opsets
    return g.laid("Clip", x, g.constant(float(alpha)), g.constant(float(beta)))


def relu6(g: Graph, x: Operand) -> Operand:
    return clip(g, x, alpha=0.0, beta=6.0)


def threshold(g: Graph, x: Operand, *, alpha: float) -> Operand:
    return with_number(g, "Max", x, alpha)


def prelu(g: Graph, x: Operand, alpha: Operand) -> Operand:
    slopes = constant_of(alpha).reshape((-1,) + (1,) * (x.rank - 2))
    return g.add("PRelu", x, g.constant(slopes))


def sigmoid(g: Graph, x: Operand) -> Operand:
    # onnxruntime's Sigmoid ends at x = -18, and a logarithm may follow.
    power = g.laid("Exp", g.laid("Neg", with_number(g, "Max", x, -88.0)))
    return g.laid("Reciprocal", plus(g, power, 1.0))


def silu(g: Graph, x: Operand) -> Operand:
    return g.laid("Mul", x, g.laid("Sigmoid", x))


def sigmoid_hard(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    return clip(g, linear_activation(g, x, alpha=alpha, beta=beta), alpha=0.0, beta=1.0)


def linear_activation(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    return plus(g, times(g, x, alpha), beta)


def scaled_tanh(g: Graph, x: Operand, *, alpha: float, beta: float) -> Operand:
    return times(g, g.laid("Tanh", times(g, x, beta)), alpha)


def gelu(g: Graph, x: Operand, *, mode: str = "EXACT") -> Operand:
    if mode == "SIGMOID_APPROXIMATION":
        return g.laid("Mul", x, g.laid("Sigmoid", times(g, x, 1.702)))
    return g.laid("Gelu", x, approximate="tanh" if mode == "TANH_APPROXIMATION" else "none")


def softmax(g: Graph, x: Operand, *, axis: int = -1) -> Operand:
    at, axes = axis % x.rank, x.axes()
    if axes is None or at not in axes:
        return g.add("Softmax", x, axis=at)
    place, layout = axes[at], x.layout
    if place == len(layout) - 1:
        return g.laid("Softmax", x, axis=-1)
    # onnxruntime's own way over other axes moves single elements.
    folded = (math.prod(layout[:place]), layout[place], math.prod(layout[place + 1 :]))
    turned = transpose(g, reshaped(x, folded), perm=(0, 2, 1))
    return reshaped(transpose(g, softmax(g, turned), perm=(0, 2, 1)), x.shape)


def select(g: Graph, cond: Operand, a: Operand, b: Operand) -> Operand:
    operands, shape, layout = together(g, cond, a, b)
    return g.laid("Where", *operands, shape=shape, layout=layout)


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
