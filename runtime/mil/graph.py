"""A function of a package as a list of nodes: what each op is called, what it reads, and how deep it lies.

It is read from the proto alone, so that two packages can be laid side by side before either runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.dtypes import DType
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.values import immediate, tensor_type

UNIT_ROUNDOFF = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-24}
"""Half the distance from 1 to the next number; float64 is computed in fp32 by most ops."""
MOST_SETTINGS = 16  # a constant of more elements is data, not a setting


@dataclass(frozen=True)
class Node:
    """One op that runs (not a constant).

    Attributes:
        index: its place in the program; ops in blocks come before the op that has them.
        op, name: its type, and its name in the program.
        outputs: names of its results; its own name where it has none (write_state).
        dtype: element type of the first result, such as "float16"; "" where it is no tensor.
        shape: of the first result; None for a dimension that is not known.
        sources: names of the values that it reads, constants left out.
        weights: names of the constants that it reads and that lie in a weight file.
        settings: its other constant arguments, by their names, as small arrays, numbers or strings.
        depth: ops on the longest way from an input to its result; a loop counts as one round of it.
        roundoff: unit roundoff of the coarsest float type of its results and of all that they were made of; 0 where
            there are no floats among them.
    """

    index: int
    op: str
    name: str
    outputs: tuple[str, ...]
    dtype: str
    shape: tuple[int | None, ...]
    sources: tuple[str, ...]
    weights: tuple[str, ...]
    settings: Mapping[str, Any]
    depth: int
    roundoff: float = 0.0

    @property
    def output(self) -> str:
        """Name of the first result, which no other node has."""
        return self.outputs[0]

    @property
    def plain_shape(self) -> tuple[int | None, ...]:
        """The shape without dimensions of one."""
        return tuple(d for d in self.shape if d != 1)


@dataclass(frozen=True)
class Graph:
    """A function's nodes in order.

    Attributes:
        nodes: those that run.
        made_by: name of a value -> the node that makes it.
    """

    nodes: tuple[Node, ...]

    @cached_property
    def made_by(self) -> dict[str, Node]:
        """Name of a value -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    @cached_property
    def _readers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.sources):
                readers.setdefault(name, []).append(node)
        return readers

    def producers(self, node: Node) -> list[Node]:
        """The nodes whose results it reads."""
        return [self.made_by[name] for name in dict.fromkeys(node.sources) if name in self.made_by]

    def consumers(self, node: Node) -> list[Node]:
        """The nodes that read its results."""
        return [reader for name in node.outputs for reader in self._readers.get(name, [])]

    def by_op(self, op: str, name: str) -> Node | None:
        """The node of an op's type and name."""
        return next((n for n in self.nodes if (n.op, n.name) == (op, name)), None)


def graph(package: Package, function: str | None = None) -> Graph:
    """Reads a function's nodes; of the default function if none is named."""
    name = function or package.default_function
    reader = _Reader()
    for value in package.function(name).inputs:
        reader.known[value.name] = _Past(0, _roundoff([value]))
    return Graph(tuple(reader.block(package.block(name))))


@dataclass(frozen=True)
class _Past:
    """What a value was made of: how many ops deep, and its coarsest type as a unit roundoff."""

    depth: int
    roundoff: float


@dataclass
class _Reader:
    small: dict[str, Any] = field(default_factory=dict)
    stored: set[str] = field(default_factory=set)
    known: dict[str, _Past] = field(default_factory=dict)
    count: int = 0

    def block(self, block: Any) -> Iterator[Node]:
        for op in block.operations:
            if op.type == "const":
                self._const(op)
            elif op.type.startswith("constexpr_"):
                self.stored.update(o.name for o in op.outputs)
            else:
                yield from self._inside(op)
                yield self._node(op)

    def _inside(self, op: Any) -> Iterator[Node]:
        """The nodes of an op's blocks. A loop's variables may have been made in the round before."""
        if op.blocks:
            given = self._past(b.name for a in op.inputs.values() for b in a.arguments)
            coarsest = max(given.roundoff, *(_coarsest_inside(block) for block in op.blocks))
            for inner in op.blocks:
                self.known.update((value.name, _Past(given.depth, coarsest)) for value in inner.inputs)
                yield from self.block(inner)

    def _past(self, names: Iterable[str]) -> _Past:
        """The deepest and the coarsest of values; constants are not deep."""
        found = [self.known[name] for name in names if name in self.known]
        return _Past(max((p.depth for p in found), default=0), max((p.roundoff for p in found), default=0.0))

    def _const(self, op: Any) -> None:
        value, names = op.attributes["val"], [o.name for o in op.outputs]
        if value.WhichOneof("value") == "blobFileValue":
            self.stored.update(names)
        else:
            self.small.update((name, value) for name in names)

    def _node(self, op: Any) -> Node:
        arguments = {n: [b.name or b.value for b in a.arguments] for n, a in op.inputs.items()}
        named = [r for refs in arguments.values() for r in refs if isinstance(r, str)]
        sources = tuple(r for r in named if r not in self.small and r not in self.stored)
        settings = {n: self._setting(refs) for n, refs in sorted(arguments.items())}
        settings |= {n: setting(v) for n, v in op.attributes.items() if n != "name"}
        before = self._past([*sources, *(name for block in op.blocks for name in block.outputs)])
        now = _Past(before.depth + 1, max(before.roundoff, _roundoff(op.outputs)))
        dtype, shape = _type(op)
        outputs = tuple(o.name for o in op.outputs) or (op_name(op),)
        self.known.update(dict.fromkeys(outputs, now))
        if op.type == "write_state" and named:  # a later read_state is as deep as what was written
            self.known[named[0]] = now
        self.count += 1
        return Node(
            self.count - 1, op.type, op_name(op), outputs, dtype, shape, sources,
            tuple(r for r in named if r in self.stored), {n: s for n, s in settings.items() if s is not None},
            now.depth, now.roundoff,
        )  # fmt: skip

    def _setting(self, refs: list[Any]) -> Any:
        """The value of an argument that is one small constant, else None."""
        found = [self.small.get(r) if isinstance(r, str) else r for r in refs]
        return setting(found[0]) if len(found) == 1 and found[0] is not None else None


def setting(value: Any) -> Any:
    """A constant's value where it is small, else None."""
    try:
        content = immediate(value)
    except FormatError:
        return None
    return None if isinstance(content, np.ndarray) and content.size > MOST_SETTINGS else content


def _roundoff(values: Iterable[Any]) -> float:
    """The coarsest unit roundoff of the types that inputs or outputs declare."""
    typed = (v.type for v in values if v.type.WhichOneof("type") in ("tensorType", "stateType"))
    return max((UNIT_ROUNDOFF.get(tensor_type(t)[0].name, 0.0) for t in typed), default=0.0)


def _coarsest_inside(block: Any) -> float:
    """The same of all that a block makes."""
    own = (_roundoff(op.outputs) for op in block.operations if op.type != "const")
    inner = (_coarsest_inside(b) for op in block.operations for b in op.blocks)
    return max((*own, *inner), default=0.0)


def _type(op: Any) -> tuple[str, tuple[int | None, ...]]:
    """(element type, shape) of an op's first result; ("", ()) where it is no tensor."""
    if not op.outputs or op.outputs[0].type.WhichOneof("type") not in ("tensorType", "stateType"):
        return "", ()
    dtype: DType
    dtype, shape = tensor_type(op.outputs[0].type)
    return dtype.name, shape


def op_name(op: Any) -> str:
    """The name of an op: its attribute, else that of its first output."""
    if "name" in op.attributes:
        strings = op.attributes["name"].immediateValue.tensor.strings.values
        if strings:
            return str(strings[0])
    return str(op.outputs[0].name) if op.outputs else str(op.type)
