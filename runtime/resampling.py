"""Maps of numbers scaled to the size of a picture, as torch.nn.functional.interpolate does it without align_corners.

https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.interpolate.html
"""

from __future__ import annotations

import numpy as np

CUBIC = -0.75
"""The parameter of the cubic kernel that torch has."""


def bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [..., h, w] -> [..., height, width]."""
    return _scaled(values, _linear(values.shape[-2], height), _linear(values.shape[-1], width))


def bicubic(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 [..., h, w] -> [..., height, width]."""
    return _scaled(values, _cubic(values.shape[-2], height), _cubic(values.shape[-1], width))


def bilinear_strip(values: np.ndarray, height: int, width: int, first: int, last: int) -> np.ndarray:
    """Rows `first` to `last` (not included) of bilinear, for what is too large as a whole."""
    places, weights = _linear(values.shape[-2], height)
    return _scaled(values, (places[first:last], weights[first:last]), _linear(values.shape[-1], width))


Taps = tuple[np.ndarray, np.ndarray]
"""int64 [n, taps] and float32 [n, taps]: which of the old numbers make each new one, and how much of them."""


def _scaled(values: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    values = np.asarray(values, np.float32)
    places, weights = rows
    tall = np.asarray(sum(values[..., places[:, k], :] * weights[:, k, None] for k in range(places.shape[1])))
    places, weights = columns
    return np.asarray(sum(tall[..., places[:, k]] * weights[:, k] for k in range(places.shape[1])), np.float32)


def _centers(old: int, new: int) -> np.ndarray:
    """Where the middle of each new number lies among the old ones."""
    return (np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5


def _linear(old: int, new: int) -> Taps:
    at = np.clip(_centers(old, new), 0, old - 1)
    first = np.floor(at).astype(np.int64)
    share = (at - first).astype(np.float32)
    places = np.stack([first, np.minimum(first + 1, old - 1)], -1)
    return places, np.stack([1 - share, share], -1)


def _cubic(old: int, new: int) -> Taps:
    at = _centers(old, new)
    first = np.floor(at)
    t = at - first
    far, near = np.stack([t + 1, 2 - t], -1), np.stack([t, 1 - t], -1)
    outer = CUBIC * (far**3 - 5 * far**2 + 8 * far - 4)
    inner = (CUBIC + 2) * near**3 - (CUBIC + 3) * near**2 + 1
    weights = np.stack([outer[:, 0], inner[:, 0], inner[:, 1], outer[:, 1]], -1)
    places = np.clip(first[:, None].astype(np.int64) + np.arange(-1, 3), 0, old - 1)
    return places, weights.astype(np.float32)
