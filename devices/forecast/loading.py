"""How long it takes until a model can be asked: the first time on a device, and later."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from satchel.devices.forecast.constants import Constant, constant
from satchel.devices.forecast.weights import by_coreml, count, file_bytes, runtime_of
from satchel.devices.plan import ModelShape, Plan

CHUNK_BYTES = 950_000_000
"""Of the programs whose first load was measured."""


@dataclass(frozen=True)
class Loading:
    """Seconds.

    Attributes:
        first, first_low, first_high: of the first load on a device.
        later: of any other.
        source: what is done, and where the figures come from.
    """

    first: float
    first_low: float
    first_high: float
    later: float
    source: str

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "first_seconds": round(self.first, 1), "low": round(self.first_low, 1), "high": round(self.first_high, 1),
            "later_seconds": round(self.later, 1), "source": self.source,
        }  # fmt: skip


def loading_of(plan: Plan, shape: ModelShape, bits: int | None = None) -> Loading:
    """Load times of a plan; shape and bits as memory_of."""
    return loading_for(plan, file_bytes(plan, shape, bits), count(shape).linears)


def loading_for(plan: Plan, stored: int, linears: int) -> Loading:
    """The same of the bytes of all weights in the file, and of how many weights the linears have."""
    runtime = runtime_of(plan)
    if by_coreml(plan):
        found = constant("load.chunk_s")
        later = stored * constant("load.cached_s").value
        why = f"specialised for the device, then cached: {stored / CHUNK_BYTES:.2f} of 950 MB; {found.source}"
        return _spread(found, stored / CHUNK_BYTES, later, f"{why}; that it grows with the size is assumed")
    if runtime == "onnx" and plan["weights"] == "palette":
        found = constant("load.onnx_palette_s")
        return _spread(found, linears, linears * found.value, f"LUTs are folded at each load; {found.source}")
    found = constant("load.packing_s")
    return _spread(found, stored, stored * found.value, f"weights are packed at each load; {found.source}")


def _spread(found: Constant, amount: float, later: float, source: str) -> Loading:
    return Loading(amount * found.value, amount * found.low, amount * found.high, later, source)
