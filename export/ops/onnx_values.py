"""What the ONNX op set passes around beside values of the graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir


@dataclass(frozen=True)
class Part:
    """One of several linears that were computed as one: columns of `packed`, `widths` side by side."""

    packed: ir.Value
    widths: tuple[int, ...]
    which: int


@dataclass
class Sum:
    """x + y, not yet computed; `total` is it, once a norm has computed it along the way."""

    x: ir.Value
    y: ir.Value
    total: ir.Value | None = None


Tensor: TypeAlias = ir.Value | Part | Sum


@dataclass(frozen=True)
class CacheInputs:
    """What attention reads besides q, k and v.

    Attributes:
        past: for each layer (key, value), fp32 [batch, kv_heads, context, head_dim].
        last_position: int32 [batch], tokens so far less one.
        total_length: int32 scalar, tokens so far.
        context: tokens that the cache holds.
    """

    past: Sequence[tuple[ir.Value, ir.Value]]
    last_position: ir.Value
    total_length: ir.Value
    context: int


@dataclass(frozen=True)
class RotaryInputs:
    """Tables of a rope.

    Attributes:
        cosine, sine: fp32 [context, rotated / 2].
        rotated: channels of a head.
        fused: whether GroupQueryAttention can rotate so many.
    """

    cosine: ir.Value
    sine: ir.Value
    rotated: int
    fused: bool
