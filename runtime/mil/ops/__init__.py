"""The ops that the interpreter knows, by name. A new one is a function in one of these modules and a line in a dict."""

from __future__ import annotations

from satchel.runtime.mil.ops import (
    activation,
    classify,
    constexpr,
    contraction,
    control,
    convolution,
    detection,
    elementwise,
    gather,
    lists,
    movement,
    normalization,
    pooling,
    quantization,
    random,
    rearrange,
    recurrent,
    reduction,
    resize,
    sampling,
    transposed,
)
from satchel.runtime.mil.ops.base import Op

OPS: dict[str, Op] = {
    **activation.OPS,
    **classify.OPS,
    **constexpr.OPS,
    **contraction.OPS,
    **convolution.OPS,
    **detection.OPS,
    **elementwise.OPS,
    **gather.OPS,
    **lists.OPS,
    **movement.OPS,
    **normalization.OPS,
    **pooling.OPS,
    **quantization.OPS,
    **random.OPS,
    **rearrange.OPS,
    **recurrent.OPS,
    **reduction.OPS,
    **resize.OPS,
    **sampling.OPS,
    **transposed.OPS,
}

# What the compiler itself knows how to run, besides OPS.
STRUCTURAL = frozenset({"const", "read_state", "write_state", *control.BLOCK_OPS})
