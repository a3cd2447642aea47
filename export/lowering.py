"""A Core ML package of ours against the decoder in eager torch, with the weights that the package itself holds.

Both compute the same network from the same numbers, so what differs is the lowering (export/ops/mil*.py), not the
compression. Values are found in the package by the names of the weights around them, see export/formats/coreml.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.base import DecoderConfig
from satchel.export.families.registry import load_family
from satchel.export.ops.recording import LOGITS, recorded
from satchel.export.source import resolve
from satchel.runtime.coreml.difference import Held, Side, judge, lockstep
from satchel.runtime.coreml.difference_report import Report
from satchel.runtime.errors import UsageError
from satchel.runtime.mil.graph import Graph, Node
from satchel.runtime.mil.interpreter import Watch
from satchel.runtime.readback.coreml import PackageWeights

PRODUCTS = ("conv", "linear")


@dataclass(frozen=True)
class _Matrix:
    """What the op set asks of a matrix."""

    values: np.ndarray

    def dequantize(self) -> np.ndarray:
        """float32 [rows, columns]."""
        return self.values


class DenseWeights:
    """A `Weights` (ops/base.py) out of a package."""

    def __init__(self, found: PackageWeights) -> None:
        self._found = found

    def matrix(self, name: str) -> Any:
        """What dequantizes to the matrix of this name."""
        return _Matrix(self._found.matrix(name))

    def vector(self, name: str) -> np.ndarray:
        """A norm gain or a bias."""
        return self._found.vector(name).copy()  # torch warns of arrays that are read-only

    def has(self, name: str) -> bool:
        """Whether there is one of this name."""
        return self._found.has(name)


def against_torch(side: Side, checkpoint: str, inputs: Mapping[str, Any], limit: float | None = None) -> Report:
    """Walks a package and the decoder side by side.

    Args:
        side: a package that Satchel made.
        checkpoint: the model that it was made of (as `satchel.export` takes it), whose configuration is read.
        inputs: of the package; its position must be 0 and its cache zeros, since the decoder starts empty.
        limit: error allowed everywhere, instead of runtime/coreml/tolerances.py's.

    Raises:
        UsageError: the package is not one of ours, is not this model's, or starts at another position.
    """
    config, _ = load_family(open_checkpoint(resolve(checkpoint).path))
    config = config.at_context(_context(side, config.max_position))
    found, executable, watch = side.graph(), side.executable(), Watch()
    weights = PackageWeights(side.program.package, executable.name)
    _check(config, weights, inputs, side.name)
    places = landmarks(found, config)
    pairs = sorted(((node, _reference(name, node)) for name, node in places.items()), key=lambda p: p[0].index)
    partner = {node.output: other.output for node, other in pairs}
    torches = _shaped(recorded(config, DenseWeights(weights), np.asarray(inputs["inputIds"])), places)
    rows, clues = judge(pairs, found, lockstep(side.walk(inputs, watch), torches, partner), limit)
    overflow = side.program.overflow(executable.name, watch) if side.precision == "fp16" else None
    only = (len(found.nodes) - len(pairs), 0)
    return Report((side.name, "the decoder in torch"), tuple(rows), clues, only, (), (overflow, None))


def _check(config: DecoderConfig, weights: PackageWeights, inputs: Mapping[str, Any], name: str) -> None:
    missing = [n for n in (*config.matrix_shapes(), *config.vector_shapes()) if not weights.has(n)]
    if missing or "inputIds" not in inputs:
        wanted, hint = "a package that Satchel made of this checkpoint", "export it as one package: chunks=1"
        raise UsageError(f"weights of {name}", got=f"none named {', '.join(missing[:3])}", wanted=wanted, hint=hint)
    if np.any(np.asarray(inputs.get("position", 0))) or any(np.any(v) for n, v in inputs.items() if "Cache" in n):
        raise UsageError("where the decoder in torch starts", got="a filled cache", wanted="position 0, an empty cache")


def _context(side: Side, otherwise: int) -> int:
    """Tokens that the package's cache holds, as its metadata say."""
    said = side.program.package.model.description.metadata.userDefined
    value = said.get("satchel.contextLength", "")
    return int(value) if value.isdecimal() else otherwise


def _reference(name: str, node: Node) -> Node:
    """Torch's side of a value, of the same depth."""
    return Node(node.index, "torch", name, (name,), "float32", node.shape, (), (), {}, node.depth, node.roundoff)


def _shaped(values: Iterator[tuple[str, np.ndarray]], places: Mapping[str, Node]) -> Iterator[Held]:
    """Values [1, sequence, channels] as the package lays them out."""
    for name, value in values:
        if name in places:
            yield Held(name, (), [_laid_out(value, places[name].shape)])


def _laid_out(value: np.ndarray, shape: tuple[int | None, ...]) -> np.ndarray:
    """(1, channels, 1, sequence) where the package has it so."""
    turned = value.transpose(0, 2, 1)[:, :, None, :]
    return turned if shape == turned.shape else value


# --- where the values are ---


def landmarks(found: Graph, config: DecoderConfig) -> dict[str, Node]:
    """Name of a value of the decoder (see ops/recording.py) -> the node of the package that makes it."""
    readers: dict[str, list[Node]] = {}
    for node in found.nodes:
        for weight in node.weights:
            readers.setdefault(weight, []).append(node)
    places = {}
    by_head = config.qk_norm in ("head", "heads")  # laid out by heads there, which is not how torch has them
    for name in (*config.matrix_shapes(), *config.vector_shapes()):
        if by_head and name.endswith((".q_norm", ".k_norm")):
            continue
        if made := _made_with(found, readers, name.replace(".", "__")):
            places[name] = made
    for layer in range(config.layers):
        places |= dict(_between(found, readers, places, f"layers.{layer}", config.parallel))
    if "logits" in found.made_by:
        places[LOGITS] = found.made_by["logits"]
    return {name: place for name, place in places.items() if not name.endswith(".bias")}


def _made_with(found: Graph, readers: Mapping[str, list[Node]], weight: str) -> Node | None:
    """The node that finishes what a weight begins: scales and a bias included."""
    last: Node | None = next(iter(readers.get(weight, [])), None)
    for part in ("scale", "bias"):
        for node in readers.get(f"{weight}__{part}", []):
            sums = found.consumers(node) if node.op == "gather" else []
            last = sums[0] if sums else node
    return last


def _between(
    found: Graph, readers: Mapping[str, list[Node]], places: Mapping[str, Node], layer: str, parallel: bool
) -> Iterator[tuple[str, Node]]:
    """What has no weight of its own: what o_proj and down_proj are given, and the sums after them."""
    for linear, given, behind, after in (
        ("self_attn.o_proj", "self_attn", "attention_output_layernorm", "branches" if parallel else "after_attention"),
        ("mlp.down_proj", "mlp", "mlp_output_layernorm", "branches" if parallel else "after_mlp"),
    ):
        name = f"{layer}.{linear}"
        product = next((n for n in readers.get(name.replace(".", "__"), []) if n.op in PRODUCTS), None)
        if product is not None:
            yield from ((f"{layer}.{given}", node) for node in found.producers(product)[:1])
            total = _sum_with(found, places.get(f"{layer}.{behind}", places[name]))
            yield from ((f"{layer}.{after}", node) for node in total)
            yield from ((f"{layer}.after_mlp", node) for one in total if parallel for node in _sum_with(found, one))


def _sum_with(found: Graph, value: Node) -> list[Node]:
    """The first addition that reads a value, if there is one."""
    return [node for node in found.consumers(value) if node.op == "add"][:1]
