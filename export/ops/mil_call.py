"""What is particular to one function of a Core ML program, and names in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from satchel.export.ops.mil_builder import Var


@dataclass(frozen=True)
class Call:
    """What is particular to one function of the program.

    Attributes:
        length: tokens a call, S.
        context: slots of the cache, C.
        cache: "state" or "io".
        cache_write: "slice_update", or "mask" for compilers that crash on a slice whose begin is a runtime value.
        head_parts: how many parts lm_head is split in.
        shared_head: parts of a tied head point into the embedding's data.
        fused: scaled_dot_product_attention instead of its parts (iOS18, GPU and CPU only).
        first_layer: of those in the program, whose cache has its layers only.
    """

    length: int
    context: int
    cache: str
    cache_write: str
    head_parts: int
    shared_head: bool
    fused: bool = False
    first_layer: int = 0


@dataclass(frozen=True)
class Heads:
    """Queries or keys that are split into heads already."""

    value: Var


Angles: TypeAlias = tuple[Var, Var]
"""cos and sin of the places of one call's tokens, in the shape of heads."""


def mil_name(canonical: str) -> str:
    """A canonical tensor name as an identifier of the program, reversibly."""
    return canonical.replace(".", "__")
