"""What an export needs in memory, from the model's shape alone, and how it does with less.

The figures are upper bounds of what was measured (benchmarks/README.md, large models), in bytes; they count the files
that are mapped, as operating systems do. A loaded reference takes 4 bytes a weight. Beside it, or without it, the most
is needed while a model is asked, or while its largest matrices are compressed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from satchel.export.families.base import DecoderConfig
from satchel.export.vision.config import VisionConfig
from satchel.runtime.errors import UsageError

PROGRAMS = 780_000_000
"""torch, transformers, numba, and the packages that write formats."""
CHANNEL = 67_000
"""For each channel between gate and down: activations of the golden prompts, and what allocators keep of pieces."""
WORDS = 96
"""Tokens of a prompt with a picture, and of its answer, beside those that the picture takes."""
TOKEN = 4320
"""For each id of the vocabulary: logits of the golden prompts."""
HELD = 2
"""Bytes for each weight of an embedding or head while a streamed model reads its codes, or a format its bytes."""
LINEAR = 10
"""Bytes for each weight of a linear that is being compressed: as stored, in fp32 twice, and its codes."""
TABLE = 3
"""The same of an embedding or head, of which only some rows are in fp32: its codes, and their copy on the way out."""
LOADED = 4
HEAD_LOGITS = 1 << 24
"""Logits of the model and of the original that calibration/tuning.py compares at a time."""
ACTIVATIONS = 12
"""Values for each token and channel that a layer's backward pass keeps, gradients counted."""
BATCH_TOKENS, BATCH_LOGITS = 2048, 1 << 26
"""What calibration/fisher.py works on at a time: of a large vocabulary fewer tokens than of a small one."""
TUNED = 8
"""Bytes for each weight of a linear while the rounded model is tuned: its value, its code, and its share of scales."""
FACTORS = 24
"""Bytes for each pair of columns while a Hessian's factor is computed."""
WORKERS = 2
WAYS = ((False, WORKERS), (True, WORKERS), (True, 1))
"""Whether the reference is streamed, and how many workers there are: the fastest way first."""
SHARE = 2
"""A model is loaded whole by default if that takes at most one part in so many of the machine's memory."""


@dataclass(frozen=True)
class MemoryPlan:
    """How an export keeps within its memory.

    Attributes:
        streamed: whether the reference's matrices stay in their files.
        workers: matrices that are compressed at the same time.
        bytes: needed at the most.
        tuned: whether there is room to tune the rounded model as a whole.
    """

    streamed: bool
    workers: int
    bytes: int
    tuned: bool = False


def plan_memory(
    config: DecoderConfig,
    limit: int | None = None,
    *,
    curved: bool = False,
    tunable: bool = False,
    tower: VisionConfig | None = None,
    shown: int = 0,
) -> MemoryPlan:
    """The fastest way that keeps within the limit: loaded with two workers, streamed with two, streamed with one.

    What is loaded is tuned as well if it can be.

    Args:
        config: of the model.
        limit: bytes; None prefers half of the machine's memory, and refuses nothing.
        curved: whether the curvature is measured.
        tunable: whether the rounded model is to be tuned.
        tower: of a model that sees.
        shown: rows of the golden picture, each of which is a token.

    Raises:
        UsageError: even the last way needs more; the message says how much.
    """
    ways = [_plan(config, streamed, workers, curved, tower, shown) for streamed, workers in WAYS]
    allowed = machine_memory() // SHARE if limit is None else limit
    if tunable and (needed := max(ways[0].bytes, _tuning(config, tower))) <= allowed:
        return replace(ways[0], bytes=needed, tuned=True)
    for way in ways:
        if way.bytes <= allowed:
            return way
    if limit is None:
        return ways[1]
    raise UsageError(
        "--max-memory is less than this model needs",
        got=f"{limit / 1e6:,.0f} MB",
        wanted=f"at least {-(-ways[-1].bytes // 10**6)}MB",
        hint="its largest matrices must fit, beside the programs that write the formats; "
        + ("--effort low needs less" if curved else "nothing needs less"),
    )


def _plan(
    config: DecoderConfig, streamed: bool, workers: int, curved: bool, tower: VisionConfig | None, shown: int
) -> MemoryPlan:  # fmt: skip
    seeing = tower.matrix_shapes() if tower else {}
    sizes = {name: rows * columns for name, (rows, columns) in {**config.matrix_shapes(), **seeing}.items()}
    loaded = 0 if streamed else LOADED * sum(sizes.values())
    table = max(sizes.pop("embed_tokens"), sizes.pop("lm_head", 0))
    linear = max(sizes.values())
    asking = CHANNEL * config.intermediate_size + TOKEN * config.vocab_size + HELD * table
    asking += max(_tile(tower), _prompt(config, shown + WORDS)) if tower else 0
    compressing = max(workers * LINEAR * linear, TABLE * table + (workers - 1) * LINEAR * linear)
    measuring = _measuring(config, workers) if curved else 0
    return MemoryPlan(streamed, workers, PROGRAMS + loaded + max(asking, compressing, measuring))


def _tuning(config: DecoderConfig, tower: VisionConfig | None) -> int:
    """All linears on their way, both heads, and activations: one layer's, and those between layers."""
    linears = sum(rows * columns for rows, columns in config.linear_shapes().values())
    tables = sum(rows * columns for rows, columns in config.matrix_shapes().values()) - linears
    seeing = sum(rows * columns for rows, columns in tower.matrix_shapes().values()) if tower else 0
    loaded = LOADED * (linears + tables + seeing)
    between = 4 * BATCH_TOKENS * config.hidden_size * config.layers
    layer = 4 * BATCH_TOKENS * ACTIVATIONS * (config.hidden_size + config.intermediate_size)
    return PROGRAMS + loaded + TUNED * linears + 2 * LOADED * tables + between + layer + 16 * HEAD_LOGITS


def _prompt(config: DecoderConfig, tokens: int) -> int:
    """The cache of a prompt with a picture, its logits, and what a layer has of its rows at a time, in fp32."""
    cache = 2 * config.layers * config.kv_heads * config.head_dim
    return 4 * tokens * (cache + config.vocab_size + 8 * config.hidden_size + 3 * config.intermediate_size)


def _tile(tower: VisionConfig) -> int:
    """Activations of one tile in fp32: what a layer has of its rows at a time, and the scores of its heads."""
    rows = tower.positions * (8 * tower.hidden_size + 3 * tower.intermediate_size)
    return 4 * (rows + 2 * tower.heads * tower.positions**2)


def _measuring(config: DecoderConfig, workers: int) -> int:
    """One layer's weights, the Hessian of each of its linears, and the factors of those that are being worked on."""
    layers: dict[str, list[tuple[int, int]]] = {}
    for name, shape in config.linear_shapes().items():
        layers.setdefault(name.split(".")[1], []).append(shape)
    shapes = max(layers.values(), key=lambda each: sum(rows * columns for rows, columns in each))
    widest = max(columns for _, columns in shapes)
    weights, hessians = sum(rows * columns for rows, columns in shapes), sum(columns**2 for _, columns in shapes)
    largest = max(rows * columns for rows, columns in shapes)
    layer = (
        4 * weights + 4 * hessians + 4 * BATCH_TOKENS * ACTIVATIONS * (config.hidden_size + config.intermediate_size)
    )
    at_the_end = 4 * config.vocab_size * config.hidden_size + 16 * BATCH_LOGITS
    return max(layer + workers * (FACTORS * widest**2 + LINEAR * largest), at_the_end)


def machine_memory() -> int:
    """Bytes of physical memory; where the system does not say, so many that nothing is held back."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 1 << 62
