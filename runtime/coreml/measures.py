"""How far one result of an op is from another."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

NOT_SMALL = 1e-3
"""Relative differences of single elements count those of at least this part of the largest one."""


@dataclass(frozen=True)
class Measure:
    """Differences of a pair of arrays, the first of which is the reference.

    Attributes:
        error: what is judged, see tolerances.py; infinite where only one is finite, or shapes do not fit.
        largest: largest absolute difference.
        relative: largest difference relative to its element, of elements that are not small.
        sqnr: signal to noise in dB, 10 log10(sum a^2 / sum (a - b)^2); inf where both are equal.
        psnr: the same of the largest |a|: 10 log10(max a^2 / mean (a - b)^2).
        peak: largest finite |a|.
        differing: how many elements are not equal.
        note: what else is to be said, such as shapes that do not fit.
    """

    error: float
    largest: float = 0.0
    relative: float = 0.0
    sqnr: float = math.inf
    psnr: float = math.inf
    peak: float = 0.0
    differing: int = 0
    note: str = ""


def measure(a: Any, b: Any, terms: float = 0.0) -> Measure:
    """Compares two results.

    Args:
        a, b: arrays, or strings, or lists or dictionaries of them; shapes may differ by dimensions of one.
        terms: the least size that a counts with: of what was added up to it, where that may have cancelled.
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return _of_lists([a[k] for k in sorted(a)], [b[k] for k in sorted(b)], terms)
    if isinstance(a, list | tuple) or isinstance(b, list | tuple):
        return _of_lists(list(a), list(b), terms)
    x, y = np.asarray(a), np.asarray(b)
    if _plain(x) != _plain(y):
        note = f"shape {list(x.shape)} against {list(y.shape)}"
        return Measure(math.inf, math.inf, math.inf, -math.inf, -math.inf, note=note)
    x, y = x.reshape(-1), y.reshape(-1)
    if not x.size:
        return Measure(0.0)
    if x.dtype.kind not in "f" or y.dtype.kind not in "f":
        return _of_integers(x, y)
    return _of_floats(_wide(x), _wide(y), terms)


def worst(measures: list[Measure]) -> Measure:
    """The one with the greatest error."""
    return max(measures, key=lambda m: m.error, default=Measure(0.0))


def rms(x: Any) -> float:
    """Root mean square of the finite elements; 0 for anything but floats."""
    array = np.asarray(x)
    if array.dtype.kind != "f" or not array.size:
        return 0.0
    values = array.reshape(-1).astype(np.float32, copy=False)
    total = float(np.dot(values, values))
    if math.isfinite(total):
        return math.sqrt(total / values.size)
    finite = values[np.isfinite(values)].astype(np.float64)
    return math.sqrt(float(np.dot(finite, finite)) / max(finite.size, 1))


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def _plain(x: np.ndarray) -> tuple[int, ...]:
    return tuple(d for d in x.shape if d != 1)


def _of_lists(a: list[Any], b: list[Any], terms: float) -> Measure:
    if len(a) != len(b):
        return Measure(math.inf, note=f"{len(a)} elements against {len(b)}")
    return worst([measure(x, y, terms) for x, y in zip(a, b, strict=True)])


def _of_integers(x: np.ndarray, y: np.ndarray) -> Measure:
    """The error is the share of elements that are not equal."""
    differing = int((x != y).sum())
    numeric = x.dtype.kind in "iub" and y.dtype.kind in "iub"
    largest = float(np.abs(x.astype(np.float64) - y.astype(np.float64)).max()) if numeric and differing else 0.0
    return Measure(differing / x.size, largest, differing=differing)


def _of_floats(x: np.ndarray, y: np.ndarray, terms: float) -> Measure:
    if np.array_equal(x, y):
        return Measure(0.0, peak=_peak(x))
    with np.errstate(all="ignore"):
        found = _of_finite(x, y, terms)
        return found if math.isfinite(found.error) else _of_any(x, y, terms)


def _of_any(x: np.ndarray, y: np.ndarray, terms: float) -> Measure:
    """Where some elements are not finite, or too large for their squares: the same infinities and NaN are equal."""
    both = np.isfinite(x) & np.isfinite(y)
    odd = int((~both & ~((x == y) | (np.isnan(x) & np.isnan(y)))).sum())
    if odd:
        endless = (math.inf, math.inf, math.inf, -math.inf, -math.inf)
        return Measure(*endless, _peak(x), odd, f"{odd} elements are not finite on one side")
    if np.array_equal(x[both], y[both]):
        return Measure(0.0, peak=_peak(x))
    return _of_finite(x[both].astype(np.float64), y[both].astype(np.float64), terms)


def _of_finite(x: np.ndarray, y: np.ndarray, terms: float) -> Measure:
    distance, size = np.abs(x - y), np.abs(x)
    largest, peak = float(distance.max()), float(size.max())
    noise, signal = float(np.dot(distance, distance)) / x.size, float(np.dot(size, size)) / x.size
    shown = size >= max(NOT_SMALL * peak, np.finfo(np.float32).tiny)
    relative = float(np.divide(distance, size, out=np.zeros_like(distance), where=shown).max())
    error = max(_ratio(math.sqrt(noise), max(math.sqrt(signal), terms)), _ratio(largest, max(peak, terms)))
    differing = int(np.count_nonzero(distance))
    return Measure(error, largest, relative, _decibels(signal, noise), _decibels(peak**2, noise), peak, differing)


def _peak(x: np.ndarray) -> float:
    """Largest finite |x|."""
    found = float(max(x.max(), -x.min()))
    return found if math.isfinite(found) else float(np.abs(x[np.isfinite(x)]).max(initial=0))


def _ratio(part: float, whole: float) -> float:
    """NaN counts as infinite."""
    ratio = part / whole if whole else math.inf
    return math.inf if math.isnan(ratio) else ratio


def _decibels(signal: float, noise: float) -> float:
    if not (signal and math.isfinite(signal) and math.isfinite(noise)):
        return -math.inf
    return 10 * math.log10(signal / noise) if noise else math.inf
