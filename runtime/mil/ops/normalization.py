"""Normalizations. The statistics are computed in fp32, the result is rounded once, as fused kernels do."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from satchel.runtime.mil.ops.base import Array, Ints, Op


def _per_channel(values: Array, rank: int) -> Array:
    return values.reshape((1, -1) + (1,) * (rank - 2))


def layer_norm(
    x: Array, gamma: Array | None = None, beta: Array | None = None, *, axes: Ints | None = None, epsilon: float = 1e-5
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) over `axes` (all by default), times gamma, plus beta."""
    over = tuple(a % x.ndim for a in axes) if axes is not None else tuple(range(x.ndim))
    shape = [x.shape[i] if i in over else 1 for i in range(x.ndim)]
    centred = x - x.mean(axis=over, keepdims=True)
    variance = np.square(centred).mean(axis=over, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(epsilon))
    y = y if gamma is None else y * gamma.reshape(shape)
    return y if beta is None else y + beta.reshape(shape)


def l2_norm(x: Array, *, epsilon: float = 1e-6) -> Array:
    """X over the root of the sum of squares of its last three axes."""
    total = np.square(x).sum(axis=(-3, -2, -1), keepdims=True)
    return x / np.sqrt(total + np.float32(epsilon))


def batch_norm(
    x: Array,
    mean: Array,
    variance: Array,
    gamma: Array | None = None,
    beta: Array | None = None,
    *,
    epsilon: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) with given statistics a channel (axis 1), times gamma, plus beta."""
    scale = np.float32(1) / np.sqrt(variance + np.float32(epsilon))
    scale = scale if gamma is None else scale * gamma
    y = (x - _per_channel(mean, x.ndim)) * _per_channel(scale, x.ndim)
    return y if beta is None else y + _per_channel(beta, x.ndim)


def instance_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, *, epsilon: float = 1e-5) -> Array:
    """Normalizes each channel of each instance over its spatial axes, times gamma, plus beta."""
    over = tuple(range(2, x.ndim))
    centred = x - x.mean(axis=over, keepdims=True)
    variance = np.square(centred).mean(axis=over, keepdims=True)
    y = centred / np.sqrt(variance + np.float32(epsilon))
    y = y if gamma is None else y * _per_channel(gamma, x.ndim)
    return y if beta is None else y + _per_channel(beta, x.ndim)


def local_response_norm(x: Array, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """x / (k + alpha / size * sum of squares over `size` channels)^beta; of an even size one more lies before."""
    widths = [(0, 0), (size // 2, (size - 1) // 2)] + [(0, 0)] * (x.ndim - 2)
    squares = sliding_window_view(np.pad(np.square(x), widths), size, axis=1).sum(axis=-1)
    return x / np.power(np.float32(k) + np.float32(alpha / size) * squares, np.float32(beta))


OPS: dict[str, Op] = {
    "batch_norm": Op(batch_norm),
    "instance_norm": Op(instance_norm),
    "l2_norm": Op(l2_norm),
    "layer_norm": Op(layer_norm),
    "local_response_norm": Op(local_response_norm),
}
