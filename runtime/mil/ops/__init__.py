"""The ops that the interpreter knows, by name. A new one is a function in one of these modules and a line in a dict."""

from __future__ import annotations

from satchel.runtime.mil.ops import (
    activation,
    constexpr,
    contraction,
    convolution,
    elementwise,
    gather,
    movement,
    normalization,
    quantization,
    rearrange,
    recurrent,
    reduction,
    transposed,
)
from satchel.runtime.mil.ops.base import Op

OPS: dict[str, Op] = {
    **activation.OPS,
    **constexpr.OPS,
    **contraction.OPS,
    **convolution.OPS,
    **elementwise.OPS,
    **gather.OPS,
    **movement.OPS,
    **normalization.OPS,
    **quantization.OPS,
    **rearrange.OPS,
    **recurrent.OPS,
    **reduction.OPS,
    **transposed.OPS,
}
