"""What a lowering sees: values with their shapes, and a graph that nodes are added to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from satchel.runtime.mil.regions import onnx_proto

Shape = tuple[int, ...]


class Unsupported(Exception):
    """This step cannot be handed over; it stays with numpy."""


@dataclass(frozen=True)
class Operand:
    """A value in a graph.

    Attributes:
        name: in the graph.
        shape: of its value.
        constant: its value, where it is one.
        source: the value that this one is a mere reshape of.
    """

    name: str
    shape: Shape
    constant: np.ndarray | None = None
    source: Operand | None = None

    @property
    def is_half(self) -> bool:
        """Whether it is a constant that is kept in fp16, to be widened at each use."""
        return self.constant is not None and self.constant.dtype == np.float16

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


@dataclass
class Graph:
    """An ONNX graph that grows.

    Attributes:
        embeds: name of a constant operand -> itself, for those that should be a part of the graph, not an input.
        bound: parts of constants that are inputs of their own.
    """

    embeds: dict[str, Operand] = field(default_factory=dict)
    bound: list[Operand] = field(default_factory=list)
    _nodes: list[tuple[list[str], list[str], bytes]] = field(default_factory=list)  # inputs, outputs, the node
    _constants: dict[tuple[Any, ...], Operand] = field(default_factory=dict)
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

    def add(
        self, op: str, *inputs: Operand | None, shape: Shape | None = None, domain: str = "", **attributes: Any
    ) -> Operand:
        """A node with one output, of this shape (that of the first input by default)."""
        (out,) = self.add_many(op, 1, *inputs, domain=domain, **attributes)
        return Operand(out.name, inputs[0].shape if shape is None and inputs[0] is not None else shape or ())

    def add_many(
        self, op: str, outputs: int, *inputs: Operand | None, domain: str = "", **attributes: Any
    ) -> tuple[Operand, ...]:
        """A node with several outputs, whose shapes the caller knows."""
        names = [i.name if i is not None else "" for i in inputs]
        while names and not names[-1]:
            names.pop()
        results = tuple(Operand(self.new_name(), ()) for _ in range(outputs))
        made = [r.name for r in results]
        self._nodes.append((names, made, onnx_proto.node(op, names, made, domain, attributes)))
        return results

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
