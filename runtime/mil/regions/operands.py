"""What a lowering sees: values with their shapes, and a graph that nodes are added to.

A value has the shape that the program says, and a layout: the shape it has in the graph, with the same elements in the
same order. They differ where the program only reshapes a value or moves axes of length 1: that makes no node, until an
op needs the value in another layout. A program for the Neural Engine is full of such moves, and between two matrices
that empty the cache each node costs microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from satchel.runtime.mil.regions import onnx_proto

Shape = tuple[int, ...]
FEW = 4096  # elements of a constant that may be copied into another layout


class Unsupported(Exception):
    """This step cannot be handed over; it stays with numpy."""


@dataclass(frozen=True)
class Operand:
    """A value in a graph.

    Attributes:
        name: in the graph.
        shape: as the program has it.
        constant: its value, where it is one, in its shape.
        laid: its layout, where that is not its shape.
    """

    name: str
    shape: Shape
    constant: np.ndarray | None = None
    laid: Shape | None = None

    @property
    def layout(self) -> Shape:
        """The shape that it has in the graph."""
        return self.shape if self.laid is None else self.laid

    @property
    def is_half(self) -> bool:
        """Whether it is a constant that is kept in fp16, to be widened at each use."""
        return self.constant is not None and self.constant.dtype == np.float16

    @property
    def is_small(self) -> bool:
        """Whether it is a constant that may have any layout."""
        return self.constant is not None and self.constant.size <= FEW

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def axes(self) -> dict[int, int] | None:
        """Axis of the shape -> axis of the layout, for those longer than 1; None where they are not the same ones."""
        own, laid = ([i for i, n in enumerate(s) if n != 1] for s in (self.shape, self.layout))
        if [self.shape[i] for i in own] != [self.layout[i] for i in laid]:
            return None
        return dict(zip(own, laid, strict=True))


@dataclass
class Graph:
    """An ONNX graph that grows.

    Attributes:
        embeds: name of a constant operand -> itself, for those that should be a part of the graph, not an input.
        bound: constants, or parts of them, that are inputs of their own.
    """

    embeds: dict[str, Operand] = field(default_factory=dict)
    bound: list[Operand] = field(default_factory=list)
    _nodes: list[tuple[list[str], list[str], bytes]] = field(default_factory=list)  # inputs, outputs, the node
    _constants: dict[tuple[Any, ...], Operand] = field(default_factory=dict)
    _fitted: dict[tuple[str, Shape], str] = field(default_factory=dict)
    _roots: dict[str, tuple[str, Shape]] = field(default_factory=dict)  # a reshaped value -> what it was, its layout
    _turned: dict[str, tuple[Operand, Shape]] = field(default_factory=dict)  # a transposed value -> of what, and how
    _count: int = 0

    def needed(self, outputs: Collection[str]) -> tuple[list[bytes], list[bytes], set[str]]:
        """The nodes and constants that these outputs need, serialized, and the names of all values that they read."""
        read, nodes = set(outputs), []
        for inputs, results, node in reversed(self._nodes):
            if read.intersection(results):
                read.update(inputs)
                nodes.append(node)
        constants = (o for o in self._constants.values() if o.name in read)
        return nodes[::-1], [onnx_proto.tensor(o.name, np.asarray(o.constant)) for o in constants], read

    def new_name(self) -> str:
        """A name that is not taken."""
        self._count += 1
        return f"t{self._count}"

    # ---- nodes -----------------------------------------------------------------------------------------------

    def add(
        self, op: str, *inputs: Operand | None, shape: Shape | None = None, domain: str = "", **attributes: Any
    ) -> Operand:
        """A node with one output of this shape (that of the first input by default), all laid as their shapes say."""
        return self.laid(op, *(self.plain(i) for i in inputs), shape=shape, domain=domain, **attributes)

    def laid(
        self,
        op: str,
        *inputs: Operand | None,
        shape: Shape | None = None,
        layout: Shape | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Operand:
        """A node that takes its inputs as they are laid. By default its output is laid as its shape says, or, where
        that is not given either, has shape and layout of the first input."""
        (made,) = self.add_many(op, 1, *inputs, domain=domain, **attributes)
        first = inputs[0]
        if shape is None and first is not None:
            return Operand(made, first.shape, laid=first.laid if layout is None else layout)
        return Operand(made, shape or (), laid=layout)

    def add_many(
        self, op: str, outputs: int, *inputs: Operand | None, domain: str = "", **attributes: Any
    ) -> list[str]:
        """A node that takes its inputs as they are laid; the names of its outputs."""
        names = [i.name if i is not None else "" for i in inputs]
        while names and not names[-1]:
            names.pop()
        made = [self.new_name() for _ in range(outputs)]
        self._nodes.append((names, made, onnx_proto.node(op, names, made, domain, attributes)))
        return made

    def fit(self, x: Operand, layout: Shape) -> Operand:
        """X in this layout."""
        if x.layout == layout:
            return x
        if math.prod(layout) != math.prod(x.shape) or min(layout, default=1) < 1:
            raise Unsupported
        if x.constant is not None:
            array = x.constant.reshape(layout)
            return replace(self.constant(array) if x.is_small else self.bind(array), shape=x.shape, laid=layout)
        root, original = self._roots.get(x.name, (x.name, x.layout))
        if layout == original:
            return replace(x, name=root, laid=layout)
        if (root, layout) not in self._fitted:
            (made,) = self.add_many("Reshape", 1, Operand(root, original), self.constant(layout))
            self._fitted[root, layout] = made
            self._roots[made] = (root, original)
        return replace(x, name=self._fitted[root, layout], laid=layout)

    def turned(self, x: Operand, perm: Sequence[int]) -> Operand:
        """X with the axes of its layout in another order, shape and layout the same; turned back, it is what it was."""
        source, before = self._turned.get(x.name, (x, tuple(range(len(perm)))))
        together = tuple(before[p] for p in perm)
        layout = tuple(source.layout[p] for p in together)
        if together == tuple(range(len(perm))):
            return Operand(source.name, layout)
        made = self.laid("Transpose", source, shape=layout, perm=together)
        self._turned[made.name] = (source, together)
        return made

    def plain(self, x: Operand | None) -> Operand | None:
        """X laid as its shape says."""
        return None if x is None else self.fit(x, x.shape)

    # ---- constants -------------------------------------------------------------------------------------------

    def constant(self, values: np.ndarray | Sequence[int] | float) -> Operand:
        """A small constant of the graph itself: floats as fp32, a sequence of ints as int64."""
        if isinstance(values, np.ndarray):
            array = values
        else:
            array = np.asarray(values, np.float32 if isinstance(values, float) else np.int64)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = Operand(self.new_name(), array.shape, array)
        return self._constants[key]

    def embed(self, operand: Operand) -> Operand:
        """Asks for a large constant to be a part of the graph, which lets onnxruntime lay it out anew."""
        if operand.constant is not None:
            self.embeds[operand.name] = operand
        return operand

    def bind(self, array: np.ndarray) -> Operand:
        """A large constant as an input of its own, not copied."""
        self.bound.append(Operand(self.new_name(), array.shape, array))
        return self.bound[-1]

    def widened(self, operand: Operand) -> Operand:
        """A constant as fp32."""
        if not operand.is_half:
            return operand
        return self.add("Cast", operand, to=onnx_proto.ELEMENT_TYPES["float32"])


def broadcast(*shapes: Shape) -> Shape:
    """The shape that arrays of these shapes have together; Unsupported where they do not go together."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise Unsupported from error


def constant_of(operand: Operand) -> np.ndarray:
    """The value of a constant; Unsupported where it is none."""
    if operand.constant is None:
        raise Unsupported
    return operand.constant


def reshaped(x: Operand, shape: Shape) -> Operand:
    """X in another shape; no node."""
    if math.prod(shape) != math.prod(x.shape) or min(shape, default=1) < 1:
        raise Unsupported
    constant = None if x.constant is None else x.constant.reshape(shape)
    return Operand(x.name, shape, constant, x.layout)
