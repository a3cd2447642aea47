"""Which layers go into which package, where a model is spread over several: consecutive, and even in bytes.

The Neural Engine takes a program of some 950 MB of weights (neural-engine rule 19), and a weight file of 2 GiB at the
most. Layers differ in bytes where their bits were chosen by loss, and the ends weigh too, so the largest package is
made as small as it can be, and then all as even as they can be.

**A tied embedding** serves the first and the last package, and packages cannot share bytes. From iOS18 on, where a
package may have several functions, the last one holds the table once: it has the head, and a function that looks up
ids, which is called before the first chunk's. That costs one more dispatch a call (0.1 to 0.23 ms, rule 20) and saves
the table, which for a vocabulary of 128,256 and 3,072 channels is 394 MB of 8-bit codes. Before iOS18, or with
plan["tied_head"] "duplicated", the first and the last package have a copy each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from satchel.devices.errors import PlanError
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.coreml_settings import Settings
from satchel.export.ops.base import Weights
from satchel.export.palettize.tensors import Matrix, PalettizedTensor
from satchel.export.palettize.widths import fitting

PACKAGE = "model.mlpackage"
Ids = Literal["within", "apart", "none"]
"""Where ids are looked up: in the functions of the layers, in functions of their own, or by the host."""


@dataclass(frozen=True)
class Chunk:
    """What one package holds.

    Attributes:
        number, count: such as 2 of 3.
        layers: of the decoder.
        embeds: the functions of its layers begin with ids, and not with the residual stream.
        table: it has functions besides that look up ids and give the residual stream.
        head: it ends with the last norm and the logits.
        rows: they begin with rows of the embedding, as a host looks them up.
    """

    number: int
    count: int
    layers: range
    embeds: bool
    table: bool
    head: bool
    rows: bool = False

    @property
    def package(self) -> str:
        """Its name in the bundle."""
        width = len(str(self.count))
        return PACKAGE if self.count == 1 else f"model-{self.number:0{width}}-of-{self.count}.mlpackage"

    @property
    def shares_table(self) -> bool:
        """Whether a tied head and the embedding are the same bytes here."""
        return self.embeds or self.table


def spread(weights: Weights, config: DecoderConfig, settings: Settings, *, ids: Ids = "within") -> list[Chunk]:
    """The packages of a model, in order.

    Args:
        weights: of which every matrix is read once for its size, unless there is one package.
        config: shape of the decoder.
        settings: how many packages there are, and for which target.
        ids: as coreml.write has it; without them there is one package.

    Raises:
        PlanError: fewer layers than packages.
    """
    apart = ids == "apart"
    count = settings.chunks
    if count > config.layers:
        raise PlanError("more chunks than layers", got=count, wanted=f"1 to {config.layers}")
    if count == 1:
        return [Chunk(1, 1, range(config.layers), ids == "within", apart, head=True, rows=ids == "none")]
    table = apart or (config.tied_embeddings and settings.blockwise and settings.tied_head == "shared")
    cuts = balanced(_sizes(weights, config, settings, table), count)
    return [
        Chunk(i + 1, count, range(a, b), i == 0 and not table, table and i == count - 1, i == count - 1)
        for i, (a, b) in enumerate(itertools.pairwise(cuts))
    ]


def _sizes(weights: Weights, config: DecoderConfig, settings: Settings, table: bool) -> list[int]:
    """Bytes of each layer, what comes before and after the layers counted to the first and the last."""
    sizes = [0] * config.layers
    for name in config.matrix_shapes():
        first, layer, *_ = name.split(".") if "." in name else ("", "0")
        stored = stored_bytes(weights.matrix(name), blockwise=settings.blockwise)
        if first == "layers":
            sizes[int(layer)] += stored
        elif name == "embed_tokens":
            sizes[0] += 0 if table else stored
            sizes[-1] += stored if config.tied_embeddings else 0
        else:
            sizes[-1] += stored
    return sizes


def stored_bytes(matrix: Matrix, *, blockwise: bool) -> int:
    """Bytes of a matrix in a package: a palette's index may be wider there."""
    if isinstance(matrix, PalettizedTensor):
        wider = fitting(matrix.bits, blockwise=blockwise) - matrix.bits
        return matrix.stored_bytes + matrix.index.size * wider // 8
    return matrix.stored_bytes


def balanced(sizes: Sequence[int], count: int) -> list[int]:
    """Cuts a sequence into `count` pieces, none empty: the largest as small as can be, then all as even as can be.

    Args:
        sizes: of the elements, >= 0.
        count: 1 to len(sizes).

    Returns:
        Where pieces begin, and the end: count + 1 numbers from 0 to len(sizes). The same input, the same cuts.
    """
    ends = [0, *itertools.accumulate(sizes)]
    largest, _ = _cut(ends, count, max, ends[-1])
    return _cut(ends, count, lambda total, piece: total + piece**2, largest)[1]


def _cut(ends: Sequence[int], count: int, joined: Callable[[int, int], int], most: int) -> tuple[int, list[int]]:
    """(cost, cuts) of the cheapest way where no piece is larger than `most`; of equal ones that with early cuts.

    Args:
        ends: running sums, from 0.
        count: of pieces.
        joined: the cost of pieces so far, and a further piece's size -> the cost of them together.
        most: that a piece may have.
    """
    best: dict[int, tuple[int, list[int]]] = {0: (0, [0])}
    for _ in range(count):
        longer: dict[int, tuple[int, list[int]]] = {}
        for stop in range(1, len(ends)):
            ways = [
                (joined(cost, ends[stop] - ends[start]), [*cuts, stop])
                for start, (cost, cuts) in best.items()
                if start < stop and ends[stop] - ends[start] <= most
            ]
            if ways:
                longer[stop] = min(ways)
        best = longer
    return best[len(ends) - 1]
