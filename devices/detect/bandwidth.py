"""How fast this machine's cores read memory, by reading it."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor

LARGEST = 512 * 2**20
"""Bytes that are read: more than caches hold."""
ROUNDS = 5


def measure_read_gb_s(memory_gb: float) -> tuple[float, str]:
    """(GB/s, how it was measured); (0, "") where it cannot be.

    C's memchr looks for a byte that is not there, on all cores at once and each in its own part of one buffer; the
    best of five rounds counts. This is a lower bound of the memory's bandwidth: a published peak is higher, and other
    programs that run at the same time lower it.

    Args:
        memory_gb: RAM, of which an eighth at most is used.
    """
    threads = min(os.cpu_count() or 1, 16)
    part = int(min(LARGEST, memory_gb * 2**30 / 8)) // threads
    try:
        find = ctypes.CDLL(None).memchr
    except (OSError, AttributeError, TypeError):  # no C library to call, as on Windows
        return 0.0, ""
    find.argtypes, find.restype = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t], ctypes.c_void_p
    if part < 2**20:
        return 0.0, ""
    parts = [ctypes.create_string_buffer(part) for _ in range(threads)]
    for each in parts:
        ctypes.memset(each, 1, part)  # pages that were never written to are all one page
    best = min(_round(find, parts, part) for _ in range(ROUNDS))
    speed = round(threads * part / best / 1e9, 1)
    size = threads * part // 2**20
    return speed, f"measured here: memchr over {size} MiB on {threads} threads at once, the best of {ROUNDS}"


def _round(find: ctypes._NamedFuncPointer, parts: list[ctypes.Array[ctypes.c_char]], size: int) -> float:
    """Seconds that one reading of all parts takes."""
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda each: None, parts))  # the threads are there before the clock starts
        start = time.perf_counter()
        list(pool.map(lambda each: find(each, 0, size), parts))
        return time.perf_counter() - start
