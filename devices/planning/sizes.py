"""How large a model is: in its file, spread over packages, and in memory beside its cache. Arithmetic on rule CH16."""

from __future__ import annotations

import math

from satchel.devices.plan import ModelShape
from satchel.devices.profile import DeviceProfile
from satchel.devices.rulebook import rule

FLOATS = ("fp16", "fp32")
BLOCKWISE = ("int4", "source")
"""Schemes with a scale for each block of a row."""


def bytes_a_weight(weights: str, *, folded: bool = False) -> float:
    """What a weight of the layers takes by scheme; `folded`: in a runtime that unpacks a palette to 8-bit codes."""
    if folded and weights == "palette":
        return rule("CH16").number("folded")
    return rule("CH16").number(f"file_{weights}")


def table_bytes(shape: ModelShape, weights: str) -> int:
    """Bytes of the embedding, or of a head of its own: a byte a weight, but as wide as the others where these are."""
    width = max(rule("CH16").number("table"), bytes_a_weight(weights))
    return math.ceil(shape.vocab_size * shape.hidden_size * width)


def layer_bytes(shape: ModelShape, weights: str, *, folded: bool = False) -> int:
    """Bytes of one layer, on average."""
    tables = shape.vocab_size * shape.hidden_size * (1 if shape.tied_embeddings else 2)
    return math.ceil((shape.parameters - tables) / shape.layers * bytes_a_weight(weights, folded=folded))


def model_bytes(shape: ModelShape, weights: str, *, folded: bool = False) -> int:
    """Bytes of all weights, of the part that sees too."""
    tables = table_bytes(shape, weights) * (1 if shape.tied_embeddings else 2)
    tower = tower_bytes(shape, weights, folded=folded)
    return shape.layers * layer_bytes(shape, weights, folded=folded) + tables + tower


def tower_bytes(shape: ModelShape, weights: str, *, folded: bool = False) -> int:
    """Bytes of the part that sees; 0 where there is none. It keeps more bits than the decoder (docs/choices.md)."""
    if shape.tower is None:
        return 0
    width = bytes_a_weight("int8" if folded or weights in ("palette", *BLOCKWISE) else weights)
    return math.ceil(shape.tower.linears * width + shape.tower.floats * max(width, bytes_a_weight("fp16")))


def picture_rows(shape: ModelShape) -> int:
    """Tokens that one picture takes in the prompt, at the most; 0 where there is no part that sees."""
    return shape.tower.rows * shape.tower.tiles if shape.tower else 0


def pieces(shape: ModelShape, weights: str, *, shared: bool) -> list[int]:
    """Bytes of each layer, with what comes before and after: the embedding to the first, the head to the last.

    Args:
        shape: of the model.
        weights: scheme.
        shared: a tied table is held once, by the package of the head.
    """
    sizes, table = [layer_bytes(shape, weights)] * shape.layers, table_bytes(shape, weights)
    sizes[-1] += table
    if not (shape.tied_embeddings and shared):
        sizes[0] += table
    return sizes


def fewest_chunks(sizes: list[int], limit: float) -> int:
    """The fewest packages of consecutive layers of at most `limit` bytes each; a larger layer is alone in its own."""
    count, held = 1, 0
    for size in sizes:
        if held and held + size > limit:
            count, held = count + 1, 0
        held += size
    return count


def largest_chunk(sizes: list[int], count: int) -> int:
    """Bytes of the largest of `count` packages, spread as evenly as can be."""
    low, high = max(sizes), sum(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fewest_chunks(sizes, middle) <= count else (middle + 1, high)
    return low


def cache_bytes(shape: ModelShape, tokens: int, dtype: str) -> int:
    """Bytes of keys and values of all layers."""
    return math.ceil(2 * shape.key_channels * tokens * rule("CH16").number(dtype))


def palette_fits(profile: DeviceProfile, shape: ModelShape, *, folding: bool) -> bool:
    """Whether a palette fits where a runtime unpacks it to 8-bit codes; `folding`: with what that takes by the way."""
    each = rule("CH04").number("folding_bytes") if folding else bytes_a_weight("palette", folded=True)
    tables = table_bytes(shape, "palette") * (1 if shape.tied_embeddings else 2)
    peak = layer_bytes(shape, "palette") * shape.layers / bytes_a_weight("palette") * each + tables
    peak += tower_bytes(shape, "palette", folded=True)
    return peak + rule("CH17").number("runtime_bytes") <= app_memory(profile)


def app_memory(profile: DeviceProfile) -> float:
    """Bytes that an app may use without an entitlement; a share of the RAM where no limit is known."""
    known = rule("CH17")
    share = profile.app_memory_gb or profile.memory_gb * known.number(f"share_{profile.os}")
    return share * known.number("bytes_a_gb")
