"""What the part of a model that sees takes beside its decoder: in the file, in memory, and for a picture."""

from __future__ import annotations

from satchel.devices.forecast.constants import constant
from satchel.devices.plan import ModelShape, Plan, TowerShape

OWN_BITS = {"palette": 6, "int4": 8}
"""Of a tower's linears where those of the text model are chosen by what each was measured to cost in text."""
SCALES = {"palette": 16, "int4": 0, "int8": 16, "source": 16}
"""Bits of a row's scale, by scheme."""
FIXED = {"int8": 8.0, "fp16": 16.0, "fp32": 32.0, "source": 8.0}
FLOATS = 2
"""Bytes of numbers that are kept as halves."""


def tower_bits(plan: Plan, tower: TowerShape, bits: int | None, runtime: str) -> float:
    """Bits of a weight of its linears in the file, scales counted.

    Args:
        plan: whose scheme counts.
        tower: the part that sees.
        bits: of every linear, as asked for; None where they are chosen.
        runtime: as weights.runtime_of says.
    """
    scheme, scale = plan["weights"], SCALES.get(plan["weights"], 0) / tower.hidden_size
    if scheme in FIXED:
        return FIXED[scheme] + scale
    if scheme == "palette" and runtime == "xnnpack":
        return 8 + 2 * scale
    low = plan.get("kv_weights", "by_loss") != "by_loss"  # an export of effort low
    own = bits or (4 if low else OWN_BITS[scheme])
    return constant("int4.bits").value + own - 4 if scheme == "int4" else own + scale


def tower_file_bytes(plan: Plan, shape: ModelShape, bits: int | None, runtime: str) -> int:
    """Of the tower and the projector in the bundle; 0 where there is none."""
    if shape.tower is None:
        return 0
    floats = 4 if plan["weights"] == "fp32" or runtime == "xnnpack" else FLOATS
    return int(shape.tower.linears * tower_bits(plan, shape.tower, bits, runtime)) // 8 + floats * shape.tower.floats


def tower_held_bytes(plan: Plan, shape: ModelShape, bits: int | None, runtime: str, *, expanded: bool) -> int:
    """The same in the runtime's memory, where a palette may lie as 8-bit codes, or as halves."""
    tower = shape.tower
    if tower is None:
        return 0
    if expanded:
        return 2 * tower.parameters
    width = tower_bits(plan, tower, bits, runtime)
    if runtime == "onnx" and plan["weights"] == "palette":
        width = 8 + 32 / tower.hidden_size  # the LUT is folded into 8-bit codes when the file is loaded
    return int(tower.linears * width) // 8 + (4 if runtime in ("onnx", "xnnpack") else FLOATS) * tower.floats


def picture_bytes(tower: TowerShape, width: int, *, fused: bool) -> int:
    """Activations while one tile is seen: the residual stream, q, k, v and the MLP, and scores unless they are fused.

    Args:
        tower: the part that sees.
        width: bytes of a number.
        fused: whether attention is one kernel, which keeps no scores.
    """
    rows = tower.positions * (5 * tower.hidden_size + 2 * tower.intermediate_size)
    scores = 0 if fused else 2 * tower.heads * tower.positions**2
    return width * (rows + scores)
