"""Which layer of a network an op belongs to, told from names or, where they say nothing, from repeating structure.

By names. A name such as `layers_3_mlp_weight`, `blocks.3.attn` or `layer1_0_conv1` carries the layer's number. What an
op says itself is the number in its own name or in that of a weight it reads; a product or a gather whose weight carries
none says "no layer" (an embedding, a head). Any other op has the layer that

1. an op says whose result it reads, the highest of them, or else
2. the next op in the program says.

So the activation after a product and the residual sum after a block stay with that block, and the norm before the next
block, whose gain comes last, goes with the next.

By structure, where no two different numbers are found. The ops are a sequence of (type, shape); the longest stretch of
it that repeats itself with one period holds the layers, a period each. The period must hold a matrix product, and the
stretch a third of the program. Where in the period a layer starts is a guess: at the start of the stretch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from satchel.runtime.mil.graph import Graph, Node

NUMBERED = re.compile(r"(?<![a-z])(?:(?:res)?blocks?|layers?|stages?|features|h(?=[._/]))[._/]*(\d+)(?![a-z0-9])", re.I)
PRODUCTS = (
    "conv", "linear", "matmul", "einsum", "conv_transpose", "lstm", "gru", "rnn", "scaled_dot_product_attention",
)  # fmt: skip
SHORTEST_PERIOD = 3
ENOUGH = 0.9  # of the longest repeating stretch, for a shorter period to be preferred


@dataclass(frozen=True)
class Layer:
    """A layer.

    Attributes:
        number: as the names say it, or counted from 0.
        count: how many layers there are.
        first: the number of the first one.
        rule: what told it.
    """

    number: int
    count: int
    first: int
    rule: Literal["names", "structure"]

    def __str__(self) -> str:
        return f"layer {self.number} of {self.count} (counted from {self.first})"


def find_layers(found: Graph) -> dict[str, Layer]:
    """Name of a node's first output -> its layer; nodes outside any layer are left out."""
    numbers = numbers_by_names(found)
    rule: Literal["names", "structure"] = "names"
    if len(set(numbers.values())) < 2:
        numbers, rule = _by_structure(found.nodes), "structure"
    count, first = len(set(numbers.values())), min(numbers.values(), default=0)
    return {name: Layer(number, count, first, rule) for name, number in numbers.items()}


# --- by names ---


def numbers_by_names(found: Graph) -> dict[str, int]:
    """Name of a node's first output -> number of its layer as names say it, be there one layer only."""
    said = {node.output: _says(node) for node in found.nodes}
    numbers: dict[str, int] = {}
    following: int | None = None
    for node in reversed(found.nodes):
        own, of_sources = said[node.output], [said[p.output] for p in found.producers(node)]
        known = [n for n in of_sources if n is not None and n >= 0]
        if own is not None:
            following = own
        number = own if own is not None else max(known, default=following)
        if number is not None and number >= 0:
            numbers[node.output] = number
    return numbers


def _says(node: Node) -> int | None:
    """What a node says itself: a number, -1 for "no layer", or None for nothing."""
    for name in (node.name, *node.outputs, *node.weights):
        if match := NUMBERED.search(name):
            return int(match[1])
    return -1 if node.weights and node.op in (*PRODUCTS, "gather") else None


# --- by structure ---


def _by_structure(nodes: Sequence[Node]) -> dict[str, int]:
    codes: dict[tuple[object, ...], int] = {}
    sequence = np.array([codes.setdefault((n.op, n.plain_shape), len(codes)) for n in nodes], np.int64)
    start, period, repeats = _repetition(sequence, [n.op in PRODUCTS for n in nodes])
    return {nodes[i].output: (i - start) // period for i in range(start, start + period * repeats)}


def _repetition(sequence: np.ndarray, products: Sequence[bool]) -> tuple[int, int, int]:
    """(start, period, repeats) of the longest stretch that repeats itself; no repeats where there is none."""
    n = len(sequence)
    stretches = []
    for period in range(SHORTEST_PERIOD, n // 2 + 1):
        start, length = _longest_run(sequence[:-period] == sequence[period:])
        if length >= period and any(products[start : start + period]):
            stretches.append((length + period, period, start))
    longest = max((s[0] for s in stretches), default=0)
    if longest < max(n / 3, 1):
        return 0, 1, 0
    length, period, start = next(s for s in stretches if s[0] >= ENOUGH * longest)
    return start, period, length // period


def _longest_run(equal: np.ndarray) -> tuple[int, int]:
    """(start, length) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], equal.astype(np.int8), [0]))))
    if not len(edges):
        return 0, 0
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    best = int(np.argmax(lengths))
    return int(starts[best]), int(lengths[best])
