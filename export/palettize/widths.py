"""Which widths of a palette each target can store, and what becomes of the others."""

from __future__ import annotations

from satchel.devices.plan import Plan
from satchel.export.palettize.tensors import Matrix, PalettizedTensor, PlainTensor

BEFORE_IOS18 = (1, 2, 4, 6, 8)
"""Bits of an index in Core ML's constexpr_lut_to_dense of iOS16, which iOS17 has too."""
IOS18 = (1, 2, 3, 4, 6, 8)
"""Bits of an index in the form that came with iOS18."""


def fitting(bits: int, *, blockwise: bool) -> int:
    """The bits that Core ML stores a palette of `bits` with: as many, or the next width that the target knows.

    Args:
        bits: 1 to 8.
        blockwise: whether the target has iOS18's constexpr ops.
    """
    return next(known for known in (IOS18 if blockwise else BEFORE_IOS18) if known >= bits)


def stored_scheme(plan: Plan, matrix: Matrix) -> str:
    """The scheme that a matrix has in the file of a plan, as manifests name it.

    It is the matrix's own but for three: Core ML before iOS18 has no indices of 3 bits and takes 4; XNNPACK has no LUT,
    so that a palette is stored there as its int8 codes with a scale a row; and its floats are fp32.
    """
    if plan.format == "executorch" and plan["target"] == "xnnpack":
        if isinstance(matrix, PalettizedTensor):
            return "int8"
        return "fp32" if isinstance(matrix, PlainTensor) else matrix.scheme()
    if isinstance(matrix, PalettizedTensor) and plan.format == "coreml":
        return matrix.widened(fitting(matrix.bits, blockwise=plan["target"] == "iOS18")).scheme()
    return matrix.scheme()
