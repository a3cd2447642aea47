"""Recorded calls -> a method of an ExecuTorch program, with its memory planned.

What is filled in here are the classes of ExecuTorch's file schema; the schema itself is documented in
executorch/schema/program.fbs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from satchel.export.ops.executorch import Call, Delegate, Integer, Kernel, Tensor
from satchel.export.ops.executorch_tools import ScalarType, schema

SCALAR_TYPES = {
    "float32": ScalarType.FLOAT, "float16": ScalarType.HALF, "int64": ScalarType.LONG, "int32": ScalarType.INT,
    "int8": ScalarType.CHAR,
}  # fmt: skip
ALIGNMENT = 16
SLACK = 128
"""Bytes after the last tensor: XNNPACK's kernels may read past the end of an input."""
LEAF = '{"type": null, "context": null, "children_spec": []}'

Argument = Tensor | Integer | int | float | bool | None


@dataclass
class Arena:
    """Offsets of tensors in one block of memory; two share bytes only where their lifetimes do not meet."""

    size: int = 0
    offsets: dict[int, int] = field(default_factory=dict)
    _taken: list[tuple[int, int, int, int]] = field(default_factory=list)

    def place(self, tensor: Tensor, first: int, last: int) -> None:
        """Gives the tensor, alive from call `first` to call `last`, the lowest free offset."""
        length, offset = aligned(nbytes(tensor)), 0
        for start, end, begin, until in sorted(self._taken):
            overlaps = begin <= last and first <= until
            if overlaps and offset < end and start < offset + length:
                offset = end
        self._taken.append((offset, offset + length, first, last))
        self.offsets[id(tensor)] = offset
        self.size = max(self.size, offset + length + SLACK)


def aligned(size: int, alignment: int = ALIGNMENT) -> int:
    """The next multiple."""
    return -(-size // alignment) * alignment


def nbytes(tensor: Tensor) -> int:
    """Of its longest shape."""
    return math.prod(tensor.dims) * np.dtype(tensor.dtype).itemsize


def operands(call: Call) -> list[Argument]:
    """What a call reads and fills, in the order of its arguments."""
    return list(call.args) if isinstance(call, Delegate) else [*call.args, call.out]


def plan_memory(calls: Sequence[Call], inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> tuple[Arena, Arena]:
    """Inputs live from the beginning, outputs to the end, caches for ever, and the rest from first use to last.

    Returns:
        (of all that a call needs, of the caches): apart, since a runtime may give the methods of a file one block of
        memory for the first, as ExecuTorch's Python binding does.
    """
    end = len(calls)
    spans: dict[int, tuple[int, int]] = {}
    tensors: dict[int, Tensor] = {}
    for time, call in enumerate(calls):
        for tensor in (t for t in operands(call) if isinstance(t, Tensor) and t.blob is None):
            tensors[id(tensor)] = tensor
            first = spans.get(id(tensor), (time, time))[0]
            spans[id(tensor)] = (0, end) if tensor.lasting else (first, time)
    spans |= {id(t): (0, spans[id(t)][1]) for t in inputs} | {id(t): (spans[id(t)][0], end) for t in outputs}
    arena, caches = Arena(), Arena()
    for key in sorted(tensors, key=lambda k: spans[k][0]):  # stable: ties in order of use
        (caches if tensors[key].lasting else arena).place(tensors[key], *spans[key])
    return arena, caches


class Method:
    """Builds one execution plan.

    Attributes:
        inputs: as they were given.
        constants: the tensors that hold blobs, in the order in which they were met.
        delegates: in order of their calls.
    """

    def __init__(self, name: str, calls: Sequence[Call], inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.inputs = tuple(inputs)
        self.constants: list[Tensor] = []
        self.delegates: list[Delegate] = []
        self._held: list[schema.Tensor] = []
        self._arenas = plan_memory(calls, inputs, outputs)
        self._values: list[schema.EValue] = []
        self._places: dict[object, int] = {}
        self._operators: list[schema.Operator] = []
        places = [[self._place(t) for t in group] for group in (inputs, outputs)]
        instructions = [schema.Instruction(self._instruction(call)) for call in calls]
        self.plan = schema.ExecutionPlan(
            name=name,
            container_meta_type=container_types(len(inputs), len(outputs)),
            values=self._values,
            inputs=places[0],
            outputs=places[1],
            chains=[schema.Chain([], [], instructions, None)],
            operators=self._operators,
            delegates=[],
            non_const_buffer_sizes=[0, *(arena.size for arena in self._arenas if arena.size)],
        )

    def _place(self, argument: Argument) -> int:
        key: object = id(argument) if isinstance(argument, Tensor | Integer) else (type(argument), argument)
        if key not in self._places:
            self._values.append(schema.EValue(self._describe(argument)))
            self._places[key] = len(self._values) - 1
        return self._places[key]

    def _describe(self, argument: Argument) -> schema.KernelTypes:
        match argument:
            case Tensor():
                return self._tensor(argument)
            case None:
                return schema.Null()
            case bool():
                return schema.Bool(argument)
            case float():
                return schema.Double(argument)
            case _:
                return schema.Int(0 if isinstance(argument, Integer) else argument)

    def _tensor(self, tensor: Tensor) -> schema.Tensor:
        allocation = None
        if tensor.blob is None:
            offset = self._arenas[tensor.lasting].offsets[id(tensor)]
            allocation = schema.AllocationDetails(1 + tensor.lasting, offset & 0xFFFFFFFF, offset >> 32)
        dynamism = schema.TensorShapeDynamism
        described = schema.Tensor(
            scalar_type=SCALAR_TYPES[tensor.dtype],
            storage_offset=0,
            sizes=list(tensor.dims),
            dim_order=list(range(len(tensor.dims))),
            requires_grad=False,
            layout=0,
            data_buffer_idx=0,
            allocation_info=allocation,
            shape_dynamism=dynamism.DYNAMIC_BOUND if tensor.dynamic else dynamism.STATIC,
        )
        if tensor.blob is not None:
            self.constants.append(tensor)
            self._held.append(described)
        return described

    def number_constants(self, first: int) -> None:
        """Says where the constants lie in the file: from the one of this number on, counted from 1."""
        for number, described in enumerate(self._held, first):
            described.data_buffer_idx = number

    def _instruction(self, call: Call) -> schema.InstructionArguments:
        if isinstance(call, Delegate):
            self.delegates.append(call)
            return schema.DelegateCall(len(self.delegates) - 1, [self._place(t) for t in call.args])
        places = [self._place(argument) for argument in operands(call)]
        if isinstance(call.out, Tensor):
            places.append(places[-1])  # an out variant names its output twice: as an argument and as the result
        return schema.KernelCall(self._operator(call), places)

    def _operator(self, call: Kernel) -> int:
        operator = schema.Operator(call.operator, call.overload)
        if operator not in self._operators:
            self._operators.append(operator)
        return self._operators.index(operator)


def container_types(inputs: int, outputs: int) -> schema.ContainerMetadata:
    """How arguments and results nest: a tuple of tensors in, a leaf or a list out."""
    leaves = ", ".join([LEAF] * inputs)
    arguments = f'{{"type": "builtins.tuple", "context": "null", "children_spec": [{leaves}]}}'
    options = '{"type": "builtins.dict", "context": "[]", "children_spec": []}'
    both = f'[1, {{"type": "builtins.tuple", "context": "null", "children_spec": [{arguments}, {options}]}}]'
    several = ", ".join([LEAF] * outputs)
    many = f'{{"type": "builtins.list", "context": "null", "children_spec": [{several}]}}'
    return schema.ContainerMetadata(both if inputs else "", f"[1, {LEAF if outputs == 1 else many}]")


def constant_method(name: str, value: bool | int | list[int]) -> schema.ExecutionPlan:
    """A method without inputs that answers with numbers, as the LLM runner reads its metadata."""
    items = value if isinstance(value, list) else [value]
    values = [schema.EValue(schema.Bool(v) if isinstance(v, bool) else schema.Int(v)) for v in items]
    return schema.ExecutionPlan(
        name=name,
        container_meta_type=container_types(0, len(items)),
        values=values,
        inputs=[],
        outputs=list(range(len(items))),
        chains=[schema.Chain([], [], [], None)],
        operators=[],
        delegates=[],
        non_const_buffer_sizes=[0],
    )
