"""One matrix -> one PalettizedTensor: weighted k-means on normalised rows, and row scales by least squares.

The error that is minimised is sum_rc h[c] * (W[r, c] - scale[r] * lut[index[r, c]])**2, where h[c] is the mean square
of input channel c: the first-order weight of an error in column c on the layer's output.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from satchel.export.palettize.kmeans import kmeans_rows
from satchel.export.palettize.lloyd import assign, in_threads, largest_in_rows, mean_squares, refit, round_rows
from satchel.export.palettize.lloyd import lookup as lookup
from satchel.export.palettize.lloyd import nearest as nearest
from satchel.export.palettize.tensors import PalettizedTensor

LOWEST_EXPONENT = -14  # below it lut * 2**exponent could be an fp16 subnormal, which the Neural Engine flushes to zero
HIGHEST_EXPONENT = 8  # 128 * 2**8 is still an fp16 number
ROWS_A_GROUP = 16
WEIGHTS_A_STEP = 1 << 22  # of an embedding, that are in memory as fp32
SAMPLE = 1 << 20  # weights, in whole rows, that a LUT is first fitted to; all rows have their say afterwards
STRIDE = 2.5  # how far a scale goes towards what is best for its present codes: the codes then follow it anyway
FACTORS = (0.5, 1.5, 256)  # of the largest entry over 127: from, to, how many are tried for an int8 LUT


def _initial_scales(w: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Weighted root mean square of each row; rows of zeros borrow the smallest of the others."""
    scale = np.sqrt(mean_squares(w, h) / h.sum(dtype=np.float64)).astype(np.float32)
    live = scale > 0
    scale[~live] = scale[live].min() if live.any() else 1.0
    return scale


Lut = tuple[np.ndarray, np.ndarray]  # entries (float32, ascending) and by how much an error in each counts


def _fit_all(w: np.ndarray, h: np.ndarray, scale: np.ndarray, lut: Lut, refits: int) -> Lut:
    """Improves the LUT and, in place, the row scales."""
    for stride in [STRIDE] * (refits - 1) + [1.0]:
        lut = refit(w, h, scale, lut[0], stride)
    return lut


def _fit_lut(w: np.ndarray, h: np.ndarray, scale: np.ndarray, bits: int, rounds: int) -> Lut:
    """Fits the LUT and, in place, the row scales of one group; of a large group some rows come first, then all."""
    step = max(w.size // SAMPLE, 1)
    some, own = (w, scale) if step == 1 else (np.ascontiguousarray(w[::step]), scale[::step].copy())
    centroids = kmeans_rows(some, h, own, 2**bits).astype(np.float32)
    lut = _fit_all(some, h, own, (centroids, np.ones(2**bits)), rounds + 1)
    if step == 1:
        return lut
    scale *= np.float32(np.mean(own / scale[::step], dtype=np.float64))  # by how much the LUT shrank meanwhile
    return _fit_all(w, h, scale, lut, rounds)


def _round_lut(lut: np.ndarray, mass: np.ndarray, keep_zero: bool) -> tuple[np.ndarray, float]:
    """The LUT as int8 and the factor that was taken out: lut ~ entries * factor.

    Of some factors, the one with the least error: with far outliers a step is so wide that it matters where the other
    entries fall in it, or it is better to cut the outliers off.
    """
    largest = float(np.abs(lut).max()) / 127 or 1.0
    factors = largest * np.geomspace(*FACTORS)
    entries = np.clip(np.round(lut / factors[:, None]), -128, 127)
    if keep_zero:
        entries[np.arange(factors.size), np.abs(entries).argmin(axis=1)] = 0
    best = int((mass * (entries * factors[:, None] - lut) ** 2).sum(axis=1).argmin())
    return entries[best].astype(np.int8), float(factors[best])


def split_exponent(scale: np.ndarray) -> tuple[int, np.ndarray]:
    """Row scales -> (exponent, float16 scales >= 1) with scale ~ 2**exponent * float16 scale.

    floor(log2(smallest)) goes into the exponent, within what fp16 can hold on both sides.
    """
    low = int(np.floor(np.log2(scale.min())))
    high = int(np.floor(np.log2(scale.max()))) - 14
    exponent = int(np.clip(max(low, high), LOWEST_EXPONENT, HIGHEST_EXPONENT))
    return exponent, np.maximum(np.ldexp(scale, -exponent), 1).astype(np.float16)


def _fit_group(
    w: np.ndarray, h: np.ndarray, bits: int, rounds: int, index: np.ndarray
) -> tuple[np.ndarray, int, np.ndarray]:
    """One LUT for all rows of w: (int8 entries, exponent, float16 scales); writes index in place."""
    scale = _initial_scales(w, h)
    lut, mass = _fit_lut(w, h, scale, bits, rounds)
    entries, factor = _round_lut(lut, mass, keep_zero=bool((~w.any(axis=1)).any()))
    as_float = entries.astype(np.float32)
    scale *= np.float32(factor)
    refit(w, h, scale, as_float)
    exponent, half = split_exponent(scale)
    assign(w, np.ldexp(half.astype(np.float32), exponent), as_float, index)
    return entries, exponent, half


def palettize(
    w: np.ndarray, h: np.ndarray | None, *, bits: int = 4, groups: int = 1, rounds: int = 3
) -> PalettizedTensor:
    """Fits a palette to one matrix.

    Args:
        w: float32 [rows, columns].
        h: float32 [columns], mean square of each input channel; None weighs all columns alike.
        bits: of an index.
        groups: LUTs, each for rows / groups consecutive rows; must divide rows.
        rounds: refits of LUT and row scales that follow k-means, beside the last ones.
    """
    rows, columns = w.shape
    w = np.ascontiguousarray(w, np.float32)
    weight = damped(h, columns)
    index = np.empty(w.shape, np.uint8)
    size = rows // groups

    def fit(first: int) -> tuple[np.ndarray, int, np.ndarray]:
        at = slice(first, first + size)
        return _fit_group(w[at], weight, bits, rounds, index[at])

    luts, exponents, scales = zip(*in_threads(fit, range(0, rows, size), w.size if groups > 1 else 0), strict=True)
    return PalettizedTensor(index, np.stack(luts), np.array(exponents, np.int8), np.concatenate(scales), bits)


def damped(h: np.ndarray | None, columns: int) -> np.ndarray:
    """Column weights with a hundredth of their mean added, so that a channel which was silent still counts."""
    if h is None:
        return np.ones(columns, np.float32)
    return np.asarray(h / h.mean() + 0.01, np.float32) if h.mean() > 0 else np.ones(columns, np.float32)


def int8_rows(w: np.ndarray) -> PalettizedTensor:
    """Symmetric 8 bits with a scale a row, said as a palette whose LUT is -128..127 in order.

    Args:
        w: float32 [rows, columns].
    """
    return int8_pieces(lambda rows: w[rows], (w.shape[0], w.shape[1]))


def int8_pieces(read: Callable[[slice], np.ndarray], shape: tuple[int, int]) -> PalettizedTensor:
    """int8_rows of a matrix that is read some rows at a time: embeddings and heads are the largest of a model.

    Args:
        read: float32 rows of the matrix; each row is asked for twice.
        shape: (rows, columns).
    """
    step = max(1, WEIGHTS_A_STEP // shape[1])
    parts = [slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step)]
    largest = np.concatenate([largest_in_rows(read(part)) for part in parts])
    scale = np.where(largest > 0, largest, largest[largest > 0].min() if largest.any() else 1.0) / 127
    exponent, half = split_exponent(scale.astype(np.float32))
    unit, index = np.ldexp(half.astype(np.float32), exponent), np.empty(shape, np.uint8)
    for part in parts:
        round_rows(read(part), unit[part], index[part])
    lut = np.arange(-128, 128).astype(np.int8)[None]
    return PalettizedTensor(index, lut, np.array([exponent], np.int8), half, 8)


def palettize_slow(w: np.ndarray, tensor: PalettizedTensor) -> np.ndarray:
    """The readable twin of the last assignment: the index of the nearest value that `tensor` can say, uint8 [r, c]."""
    out = np.empty(w.shape, np.uint8)
    size = w.shape[0] // tensor.groups
    for r in range(w.shape[0]):
        values = tensor.lut[r // size].astype(np.float64) * 2.0 ** tensor.exponent[r // size] * float(tensor.scale[r])
        out[r] = np.abs(w[r][:, None] - values[None, :]).argmin(axis=1)
    return out
