"""The ops of ML Programs that can be handed to onnxruntime.

A lowering is a function with its op's parameters after the graph. An op, or a use of one, that is missing here or
raises Unsupported stays with numpy. Values are fp32 but for the arguments named in OTHER_TYPES.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from satchel.runtime.mil.regions import elementwise, movement, products, statistics

# Arguments that are not fp32, by place -> their types.
OTHER_TYPES: dict[tuple[str, int], tuple[str, ...]] = {
    ("gather", 1): ("int32", "int64"),
    ("select", 0): ("bool",),
}

LOWERINGS: dict[str, Callable[..., Any]] = (
    elementwise.LOWERINGS | movement.LOWERINGS | products.LOWERINGS | statistics.LOWERINGS
)
