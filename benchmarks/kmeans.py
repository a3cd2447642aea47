"""K-means of one large matrix in groups of 16 rows, 4 bits: Satchel beside coremltools, in one run.

    python benchmarks/kmeans.py [--rows 3072] [--columns 8192] [--rounds 3] [--without-coremltools]

Both get two cores. coremltools clusters fp16 by its kmeans1d (after np.unique of each group), in two processes that are
started beforehand; fp32 it would give to scikit-learn. It is run once, ours several times and the fastest counts. The
error is that of the weights as fp32, alike for all columns. Imports and compilation are not counted.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numba import config

from satchel.export.palettize.fit import int8_rows, palettize
from satchel.export.palettize.kmeans import kmeans_rows
from satchel.export.palettize.lloyd import assign, in_threads

GROUP, BITS = 16, 4


def weights(rows: int, columns: int) -> np.ndarray:
    """Rows of different sizes with somewhat heavy tails, as a trained matrix has them; float32."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((rows, columns), dtype=np.float32)
    w *= rng.chisquare(8, (rows, columns)).astype(np.float32) ** -0.5
    return np.asarray(w * rng.uniform(0.03, 0.1, (rows, 1)).astype(np.float32))


def without_row_scales(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """coremltools' job by our k-means: a LUT for each group, and codes."""
    index, luts = np.empty(w.shape, np.uint8), np.empty((w.shape[0] // GROUP, 2**BITS), np.float32)
    ones, alike = np.ones(GROUP, np.float32), np.ones(w.shape[1], np.float32)

    def fit(group: int) -> None:
        rows = slice(group * GROUP, (group + 1) * GROUP)
        luts[group] = kmeans_rows(w[rows], alike, ones, 2**BITS)
        assign(w[rows], ones, luts[group], index[rows])

    in_threads(fit, range(luts.shape[0]), w.size)
    return luts, index


def by_coremltools(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """coremltools' LUTs and codes, by two worker processes, which it leaves running."""
    from coremltools.optimize.coreml._quantization_passes import palettize_weights

    found = palettize_weights.blockwise_compress(w, "KMEANS", BITS, [GROUP, 0], num_kmeans_workers=2)
    return found.lut.reshape(-1, 2**BITS), np.asarray(found.indices).astype(np.uint8)


def values(found: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What LUTs [groups, entries] and codes [rows, columns] stand for, float32."""
    luts, index = found
    grouped = np.take_along_axis(luts.astype(np.float32), index.reshape(luts.shape[0], -1).astype(np.int64), axis=1)
    return grouped.reshape(index.shape)


def error(w: np.ndarray, approximation: np.ndarray) -> float:
    """Squared error over the square of the weights."""
    return float(np.square(approximation - w, dtype=np.float64).sum() / np.square(w, dtype=np.float64).sum())


def fastest(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """(seconds, CPU seconds), each the least of all rounds."""
    wall, cpu = [], []
    for _ in range(rounds):
        start, start_cpu = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return min(wall), min(cpu)


def line(name: str, seconds: float, cpu: float, size: int, more: str = "") -> None:
    print(f"{name:52} {seconds:7.2f} s {cpu:7.2f} CPU s {size / max(cpu, 1e-9) / 1e6:7.1f} M/CPU s  {more}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3072)
    parser.add_argument("--columns", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without-coremltools", action="store_true")
    args = parser.parse_args()
    w = weights(args.rows, args.columns)
    half = w.astype(np.float16)
    small = weights(2 * GROUP, args.columns)
    config.NUMBA_NUM_THREADS = 2
    for job in (without_row_scales, int8_rows, partial(palettize, h=None), partial(palettize, h=None, groups=2)):
        job(small)

    ours = fastest(lambda: without_row_scales(w), args.rounds)
    line("Satchel, a LUT per 16 rows", *ours, w.size, f"error {error(w, values(without_row_scales(w))):.6f}")
    as_half = fastest(lambda: without_row_scales(half.astype(np.float32)), args.rounds)
    line("same, from fp16", *as_half, w.size)
    groups = args.rows // GROUP
    scaled = fastest(lambda: palettize(w, None, bits=BITS, groups=groups), args.rounds)
    found = palettize(w, None, bits=BITS, groups=groups).dequantize()
    line("Satchel's export: row scales and int8 LUTs too", *scaled, w.size, f"error {error(w, found):.6f}")
    whole = fastest(lambda: palettize(w, None, bits=BITS), args.rounds)
    found = palettize(w, None, bits=BITS).dequantize()
    line("Satchel's export, one LUT for the matrix", *whole, w.size, f"error {error(w, found):.6f}")
    line("8 bits with a scale a row", *fastest(lambda: int8_rows(w), args.rounds), w.size)
    for share in (0.5, 2):
        part = weights(int(args.rows * share) // GROUP * GROUP, args.columns)
        alone = fastest(partial(without_row_scales, part), args.rounds)
        line(f"{share:g} times the rows, a LUT per 16", *alone, part.size)
        export = fastest(partial(palettize, part, None, groups=part.shape[0] // GROUP), args.rounds)
        line(f"{share:g} times the rows, export", *export, part.size)

    if not args.without_coremltools:
        compare(w, half, ours, scaled)


def compare(w: np.ndarray, half: np.ndarray, ours: tuple[float, float], scaled: tuple[float, float]) -> None:
    """Runs coremltools on half of the rows and on all; the ratios of wall and CPU time."""
    from coremltools.optimize.coreml._quantization_passes import palettize_weights

    for rows in (w.shape[0] // 2 // GROUP * GROUP, w.shape[0]):
        by_coremltools(half[: 2 * GROUP])  # starts the processes
        before, start = sum(os.times()[:4]), time.perf_counter()
        theirs = by_coremltools(half[:rows])
        seconds = time.perf_counter() - start
        palettize_weights._compress_pool.close()  # only then is their CPU time counted
        palettize_weights._compress_pool.join()
        palettize_weights._compress_pool = None
        cpu = sum(os.times()[:4]) - before
        lost = error(w[:rows], values(theirs))
        line(f"coremltools, fp16, {rows} rows", seconds, cpu, rows * w.shape[1], f"error {lost:.6f}")
    for name, (wall, own) in {"the same job": ours, "the export's": scaled}.items():
        print(f"ratio for {name}: {seconds / wall:.1f} in seconds, {cpu / own:.1f} in CPU seconds", flush=True)


if __name__ == "__main__":
    main()
