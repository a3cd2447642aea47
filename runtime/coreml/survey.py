"""A function read from its proto alone, constants and blocks included: which op makes a value, and which ones read it.

Nothing is run, expanded or copied, so a package of gigabytes is surveyed as fast as its proto can be parsed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from satchel.runtime.mil.dtypes import DType
from satchel.runtime.mil.graph import op_name
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.values import is_state, reader, tensor_type

Shape = tuple[int | None, ...]
SMALL = 4096  # elements that an argument may have to be read as numbers
HOPS = 64  # ops that are followed from one to the next, at most


@dataclass(frozen=True)
class SurveyedOp:
    """One op.

    Attributes:
        proto: of the op.
        function: in which function.
        depth: of the block: 0 in the function's own body.
        arguments: parameter -> values: a name, or the proto of a constant.
    """

    proto: Any
    function: str
    depth: int
    arguments: Mapping[str, tuple[Any, ...]]

    @property
    def type(self) -> str:
        """Such as "conv"."""
        return str(self.proto.type)

    @cached_property
    def name(self) -> str:
        """Of the op in the program."""
        return op_name(self.proto)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of its results."""
        return tuple(o.name for o in self.proto.outputs)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values that it reads."""
        return tuple(v for values in self.arguments.values() for v in values if isinstance(v, str))

    @property
    def is_compression(self) -> bool:
        """Whether it expands a constant."""
        return self.type.startswith("constexpr_")

    @property
    def computes(self) -> bool:
        """Whether it runs, rather than stands for a constant."""
        return self.type != "const" and not self.is_compression


@dataclass(frozen=True)
class FunctionSurvey:
    """A function.

    Attributes:
        package: it belongs to.
        name, opset: of the function.
        ops: all of them in order, those of blocks before the op that has the block.
        inputs, states: name -> (element type, shape).
        outputs: names.
        types: name of a value -> (element type, shape), where it is a tensor.
    """

    package: Package
    name: str
    opset: str
    ops: tuple[SurveyedOp, ...]
    inputs: Mapping[str, tuple[DType, Shape]]
    states: Mapping[str, tuple[DType, Shape]]
    outputs: tuple[str, ...]
    types: Mapping[str, tuple[DType, Shape]] = field(repr=False)

    @cached_property
    def makers(self) -> dict[str, SurveyedOp]:
        """Name of a value -> the op that makes it."""
        return {name: op for op in self.ops for name in op.outputs}

    @cached_property
    def readers(self) -> dict[str, list[SurveyedOp]]:
        """Name of a value -> the ops that read it."""
        found: dict[str, list[SurveyedOp]] = {}
        for op in self.ops:
            for name in dict.fromkeys(op.reads):
                found.setdefault(name, []).append(op)
        return found

    def maker(self, op: SurveyedOp, parameter: str) -> SurveyedOp | None:
        """The op that makes the single value of an argument."""
        values = op.arguments.get(parameter, ())
        return self.makers.get(values[0]) if len(values) == 1 and isinstance(values[0], str) else None

    def type_of(self, value: Any) -> tuple[DType, Shape] | None:
        """(element type, shape) of a value, by name or of a constant's proto; None where it is no tensor."""
        return self.types.get(value) if isinstance(value, str) else _tensor_type(value.type)

    def argument_type(self, op: SurveyedOp, parameter: str) -> tuple[DType, Shape] | None:
        """(element type, shape) of an argument with one value."""
        values = op.arguments.get(parameter, ())
        return self.type_of(values[0]) if len(values) == 1 else None

    def result_type(self, op: SurveyedOp) -> tuple[DType, Shape] | None:
        """(element type, shape) of the first result."""
        return self.types.get(op.outputs[0]) if op.outputs else None

    def constant(self, value: Any) -> Any | None:
        """The proto of a value that is a plain constant, else None."""
        if not isinstance(value, str):
            return value
        maker = self.makers.get(value)
        return maker.proto.attributes["val"] if maker and maker.type == "const" else None

    def is_constant(self, value: Any) -> bool:
        """Whether a value is known before the program runs: a constant, plain or compressed."""
        if not isinstance(value, str):
            return True
        maker = self.makers.get(value)
        return maker is not None and not maker.computes

    def setting(self, op: SurveyedOp, parameter: str) -> Any | None:
        """A small constant argument: an array, number or text; None where it is absent, large or not constant."""
        values = op.arguments.get(parameter, ())
        proto = self.constant(values[0]) if len(values) == 1 else None
        found = _tensor_type(proto.type) if proto is not None else None
        if proto is None or found is None or elements(found[1]) > SMALL:
            return None
        return reader(self.package, proto)()

    def integers(self, op: SurveyedOp, parameter: str) -> tuple[int, ...] | None:
        """A small constant argument as whole numbers."""
        content = self.setting(op, parameter)
        if not isinstance(content, np.ndarray) or content.dtype.kind not in "iu":
            return None
        return tuple(int(v) for v in content.reshape(-1))

    def weight_files(self) -> set[str]:
        """Names of the weight files that constants lie in."""
        protos = (v for op in self.ops for args in op.arguments.values() for v in args if not isinstance(v, str))
        constants = (op.proto.attributes["val"] for op in self.ops if op.type == "const")
        return {v.blobFileValue.fileName for v in (*protos, *constants) if v.WhichOneof("value") == "blobFileValue"}

    def ancestors(self, name: str, hops: int = HOPS) -> Iterator[SurveyedOp]:
        """The ops from which a value comes, nearest first, at most `hops` of them one behind the other."""
        yield from self._walk(name, hops, lambda n: [self.makers[n]] if n in self.makers else [], lambda op: op.reads)

    def descendants(self, name: str, through: tuple[str, ...], hops: int = HOPS) -> Iterator[SurveyedOp]:
        """The ops that a value reaches, nearest first, going on only through ops of the types `through`."""
        onward = lambda op: op.outputs if op.type in through else ()  # noqa: E731
        yield from self._walk(name, hops, lambda n: self.readers.get(n, []), onward)

    def _walk(self, name: str, hops: int, ops_of: Any, names_of: Any) -> Iterator[SurveyedOp]:
        names, seen = [name], {name}
        for _ in range(hops):
            ops = list({id(op): op for n in names for op in ops_of(n)}.values())
            yield from ops
            names = [n for n in dict.fromkeys(n for op in ops for n in names_of(op)) if n not in seen]
            seen.update(names)
            if not names:
                return


def survey(package: Package, function: str) -> FunctionSurvey:
    """Reads a function; FormatError where its proto is malformed."""
    proto, block = package.function(function), package.block(function)
    types: dict[str, tuple[DType, Shape]] = {}
    ops = tuple(_ops(block, function, 0, types))
    places: dict[bool, dict[str, tuple[DType, Shape]]] = {True: {}, False: {}}
    for named in proto.inputs:
        places[is_state(named.type)][named.name] = types[named.name] = tensor_type(named.type)
    outputs = tuple(block.outputs)
    return FunctionSurvey(package, function, proto.opset, ops, places[False], places[True], outputs, types)


def _ops(block: Any, function: str, depth: int, types: dict[str, tuple[DType, Shape]]) -> Iterator[SurveyedOp]:
    _note_types(block.inputs, types)
    for op in block.operations:
        for inner in op.blocks:
            yield from _ops(inner, function, depth + 1, types)
        _note_types(op.outputs, types)
        yield SurveyedOp(op, function, depth, _arguments(op))


def _note_types(values: Any, types: dict[str, tuple[DType, Shape]]) -> None:
    for named in values:
        found = _tensor_type(named.type)
        if found is not None:
            types[named.name] = found


def _arguments(op: Any) -> dict[str, tuple[Any, ...]]:
    """Parameter -> its values. Until iOS 17 compressed constants have theirs as attributes."""
    found = {
        name: tuple(b.name if b.WhichOneof("binding") == "name" else b.value for b in argument.arguments)
        for name, argument in op.inputs.items()
    }
    if op.type.startswith("constexpr_"):
        found |= {name: (value,) for name, value in op.attributes.items() if name != "name"}
    return found


def _tensor_type(value_type: Any) -> tuple[DType, Shape] | None:
    """(element type, shape) of a tensor or state; None for lists, tuples and dictionaries."""
    return tensor_type(value_type) if value_type.WhichOneof("type") in ("tensorType", "stateType") else None


def elements(shape: Shape) -> int:
    """How many there are, an unknown dimension counted as 1."""
    count = 1
    for size in shape:
        count *= 1 if size is None else size
    return count


def surveys(package: Package) -> tuple[FunctionSurvey, ...]:
    """All functions, the default one first."""
    return tuple(survey(package, name) for name in package.functions)
