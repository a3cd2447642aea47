"""What an export needs in memory, from the model's shape alone, and how it does with less.

The figures are upper bounds of what was measured (benchmarks/README.md, large models), in bytes; they count the files
that are mapped, as operating systems do. A loaded reference takes 4 bytes a weight. Without it the most is needed while
the largest linears are compressed, some at a time, or while an embedding is rounded and written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from satchel.export.families.base import DecoderConfig
from satchel.runtime.errors import UsageError

PROGRAMS = 1_000_000_000
"""torch, transformers, numba, and the packages that write formats; what allocators keep; a pass over the prompts."""
LINEAR = 10
"""Bytes for each weight of a linear that is compressed: as stored, in fp32 twice, and its codes."""
TABLE = 8
"""The same of an embedding or head: as stored and in fp32, or its codes and their copies on the way into files."""
LOADED = 4
WORKERS = 2
SHARE = 2
"""A model is loaded whole by default if that takes at most one part in so many of the machine's memory."""


@dataclass(frozen=True)
class MemoryPlan:
    """How an export keeps within its memory.

    Attributes:
        streamed: whether the reference's matrices stay in their files.
        workers: matrices that are compressed at the same time.
        bytes: needed at the most.
    """

    streamed: bool
    workers: int
    bytes: int


def plan_memory(config: DecoderConfig, limit: int | None = None) -> MemoryPlan:
    """The fastest way that keeps within the limit: loaded with two workers, streamed with two, streamed with one.

    Args:
        config: of the model.
        limit: bytes; None prefers half of the machine's memory, and refuses nothing.

    Raises:
        UsageError: even the last way needs more; the message says how much.
    """
    ways = [_plan(config, streamed, workers) for streamed, workers in ((False, WORKERS), (True, WORKERS), (True, 1))]
    allowed = machine_memory() // SHARE if limit is None else limit
    for way in ways:
        if way.bytes <= allowed:
            return way
    if limit is None:
        return ways[1]
    raise UsageError(
        "--max-memory is less than this model needs",
        got=f"{limit / 1e6:,.0f} MB",
        wanted=f"at least {-(-ways[-1].bytes // 10**6)}MB",
        hint="its largest matrices must fit, beside the programs that write the formats",
    )


def _plan(config: DecoderConfig, streamed: bool, workers: int) -> MemoryPlan:
    sizes = {name: rows * columns for name, (rows, columns) in config.matrix_shapes().items()}
    table = max(sizes.pop("embed_tokens"), sizes.pop("lm_head", 0))
    linear = max(sizes.values())
    work = max(workers * LINEAR * linear, TABLE * table + (workers - 1) * LINEAR * linear)
    parameters = sum(rows * columns for rows, columns in config.matrix_shapes().values())
    return MemoryPlan(streamed, workers, PROGRAMS + work + (0 if streamed else LOADED * parameters))


def machine_memory() -> int:
    """Bytes of physical memory; where the system does not say, so many that nothing is held back."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 1 << 62
