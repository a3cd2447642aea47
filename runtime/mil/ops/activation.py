"""Activations and softmax."""

from __future__ import annotations

import math

import numpy as np

from satchel.runtime.mil.ops.base import Array, Op, pick
from satchel.runtime.mil.ops.elementwise import erf
from satchel.runtime.mil.ops.reduction import MAX, SUM

HALF = np.float32(0.5)
ONE = np.float32(1)
LARGEST_EXP = np.float32(-88)  # exp(88) is the last power of e that fits fp32


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, x.dtype.type(0))


def relu6(x: Array) -> Array:
    """x held between 0 and 6."""
    return np.clip(x, np.float32(0), np.float32(6))


def leaky_relu(x: Array, *, alpha: float) -> Array:
    """X, or alpha * x where it is negative."""
    return np.where(x >= 0, x, x * np.float32(alpha))


def prelu(x: Array, alpha: Array) -> Array:
    """Leaky relu with one slope a channel, axis 1."""
    slopes = alpha.reshape((1, -1) + (1,) * (x.ndim - 2))
    return np.where(x >= 0, x, x * slopes)


def elu(x: Array, *, alpha: float) -> Array:
    """X, or alpha * (exp(x) - 1) where it is negative."""
    return np.where(x >= 0, x, np.float32(alpha) * np.expm1(np.minimum(x, np.float32(0))))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return ONE / (ONE + np.exp(-np.maximum(x, LARGEST_EXP)))


def sigmoid_hard(x: Array, *, alpha: float, beta: float) -> Array:
    """alpha * x + beta held between 0 and 1."""
    return np.clip(x * np.float32(alpha) + np.float32(beta), np.float32(0), ONE)


def silu(x: Array) -> Array:
    """x * sigmoid(x)."""
    return x * sigmoid(x)


def gelu(x: Array, *, mode: str = "EXACT") -> Array:
    """x * Phi(x), exact or by one of its two approximations."""
    if mode == "TANH_APPROXIMATION":
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        return HALF * x * (ONE + np.tanh(inner))
    if mode == "SIGMOID_APPROXIMATION":
        return x * sigmoid(np.float32(1.702) * x)
    if mode != "EXACT":
        raise ValueError(f"mode {mode!r} of gelu")
    return HALF * x * (ONE + erf(x * np.float32(math.sqrt(0.5))))


def softplus(x: Array) -> Array:
    """ln(1 + exp(x)), without overflow."""
    return np.logaddexp(x, x.dtype.type(0))


def softsign(x: Array) -> Array:
    """x / (1 + |x|)."""
    return x / (ONE + np.abs(x))


def scaled_tanh(x: Array, *, alpha: float, beta: float) -> Array:
    """alpha * tanh(beta * x)."""
    return np.float32(alpha) * np.tanh(np.float32(beta) * x)


def linear_activation(x: Array, *, alpha: float, beta: float) -> Array:
    """alpha * x + beta."""
    return np.float32(alpha) * x + np.float32(beta)


def clamped_relu(x: Array, *, alpha: float, beta: float) -> Array:
    """min(beta, x), or min(beta, alpha * x) where x is negative."""
    return np.minimum(np.float32(beta), np.where(x >= 0, x, np.float32(alpha) * x))


def thresholded_relu(x: Array, *, alpha: float) -> Array:
    """X where it is at least alpha, else 0."""
    return np.where(x >= np.float32(alpha), x, np.float32(0))


def softplus_parametric(x: Array, alpha: Array, beta: Array) -> Array:
    """alpha * ln(1 + exp(beta * x)) with alpha and beta a channel, axis 1."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    return alpha.reshape(shape) * softplus(beta.reshape(shape) * x)


def softmax(x: Array, *, axis: int = -1) -> Array:
    """exp(x) over its sum along an axis, in fp32 throughout, rounded once."""
    y = x - MAX(x, axis=axis, keepdims=True)
    np.exp(y, out=y)
    y /= SUM(y, axis=axis, keepdims=True)
    return y


OPS: dict[str, Op] = {
    "clamped_relu": Op(clamped_relu),
    "elu": Op(elu),
    "gelu": Op(gelu),
    "leaky_relu": Op(leaky_relu),
    "linear_activation": Op(linear_activation),
    "prelu": Op(prelu),
    "relu": pick(relu),
    "relu6": pick(relu6),
    "scaled_tanh": Op(scaled_tanh),
    "sigmoid": Op(sigmoid),
    "sigmoid_hard": Op(sigmoid_hard),
    "silu": Op(silu),
    "softmax": Op(softmax),
    "softplus": Op(softplus),
    "softplus_parametric": Op(softplus_parametric),
    "softsign": Op(softsign),
    "tanh": Op(np.tanh),
    "thresholded_relu": pick(thresholded_relu),
}
