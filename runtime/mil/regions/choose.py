"""Which steps of a function go to onnxruntime together.

A step can be handed over if it has a lowering and works on fp32 alone. Steps get stages: odd ones hold what is handed
over, even ones what stays with numpy, each step in the first stage after those of its inputs. All that is in one odd
stage makes a region. A region without enough work stays with numpy after all, and the stages are found anew.

Views of values that numpy holds stay with numpy, where they cost nothing: a slice of a state is never copied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.dtypes import BY_NAME, compute_type
from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.regions.lowering import LOWERINGS, OTHER_TYPES
from satchel.runtime.mil.regions.operands import Graph, Operand, Shape, Unsupported
from satchel.runtime.mil.regions.session import Session
from satchel.runtime.mil.steps import NO_VALUE, RESERVED, Step

WORTH = 1 << 20  # multiply-adds below which a session is not worth its making
SMALL = 4096  # elements of a constant that is copied into the graph
EMBEDDED = 512 << 20  # bytes of convolutions' weights up to which onnxruntime gets its own copy, in its own layout
BY_ROWS = ("conv", "linear")  # ops whose weights may be widened by parts
ORDERED = ("read_state", "write_state", "slice_update")  # steps that stay in order among themselves, as those that
# have blocks or take random numbers do


@dataclass(frozen=True)
class Function:
    """What is known of a function that is being compiled.

    Attributes:
        steps: in order.
        template: slot -> constant, or None; one that is kept in fp16, to be widened at each use, is here too.
        specs: slot -> what the program says of the value.
        returned: slots of its outputs.
        unkept: slots of constants that are loaded anew at each use, within the limit of memory: not for a session.
        threads: that onnxruntime may use.
    """

    steps: Sequence[Step]
    template: Sequence[Any]
    specs: Mapping[int, TensorSpec]
    returned: Collection[int]
    unkept: Collection[int]
    threads: int

    def operand(self, slot: int) -> Operand | None:
        """A slot as a lowering sees it; Unsupported where it is no tensor."""
        if slot == NO_VALUE:
            return None
        name = f"s{slot}"
        if self.template[slot] is not None:
            value = np.asarray(self.template[slot])
            return Operand(name, value.shape, value)
        if slot < RESERVED or slot not in self.specs:
            raise Unsupported
        shape = _shape(self.specs[slot])
        # Numpy's arrays are given in the layout that most ops want; only the first axis may be one of length 1.
        return Operand(name, shape, laid=shape if 1 not in shape[1:] else tuple(n for n in shape if n != 1))

    def dtype(self, slot: int) -> str:
        """The numpy type of a slot's values."""
        if self.template[slot] is not None:
            found = np.asarray(self.template[slot]).dtype.name
            return "float32" if found == "float16" else found
        known = BY_NAME.get(self.specs[slot].dtype) if slot in self.specs else None
        return compute_type(known).name if known else ""

    def size(self, slot: int) -> int:
        """How many elements a value has."""
        operand = self.operand(slot)
        return math.prod(operand.shape) if operand else 0


def _shape(spec: TensorSpec) -> Shape:
    """Unsupported where a dimension is not known: what cannot be known to be right is left to numpy."""
    if any(isinstance(n, str) for n in spec.shape):
        raise Unsupported
    return tuple(int(n) for n in spec.shape)


def with_regions(
    steps: Sequence[Step],
    template: Sequence[Any],
    specs: Mapping[int, TensorSpec],
    returned: Collection[int],
    unkept: Collection[int],
    threads: int,
) -> list[Step]:
    """The steps, in an order that gives the same results, with each worthwhile region as one step.

    Arguments are those of `Function`.
    """
    function = Function(steps, template, specs, returned, unkept, threads)
    lowered = [_can_lower(function, step) for step in steps]
    while True:
        stages = _stages(steps, lowered)
        regions: dict[int, list[int]] = {}
        for i, stage in enumerate(stages):
            if stage % 2:
                regions.setdefault(stage, []).append(i)
        poor = [r for r in regions.values() if sum(_work(function, steps[i]) for i in r) < WORTH]
        if not poor:
            break
        for i in (i for region in poor for i in region):
            lowered[i] = False
    return _joined(function, stages)


def _can_lower(function: Function, step: Step) -> bool:
    if step.op not in LOWERINGS or step.statics is None or any(slot in function.unkept for slot in step.inputs):
        return False
    places = [(slot, OTHER_TYPES.get((step.op, i), ("float32",))) for i, slot in enumerate(step.inputs)]
    places += [(slot, ("float32",)) for slot in step.outputs]
    if any(slot != NO_VALUE and function.dtype(slot) not in types for slot, types in places):
        return False
    try:
        _lower(function, step, Graph(), {})
    except Exception:  # not Unsupported alone: a malformed step fails in any way, and numpy's kernels say how
        return False
    return True


def _lower(function: Function, step: Step, graph: Graph, known: dict[int, Operand]) -> None:
    """Adds a step's nodes to a graph; `known` has the values that are in it, by slot."""
    inputs = [known[slot] if slot in known else _from_outside(function, slot, graph) for slot in step.inputs]
    if step.op not in BY_ROWS:
        inputs = [graph.widened(i) if i else i for i in inputs]
    lowering: Callable[..., Any] = LOWERINGS[step.op]
    found = lowering(graph, *inputs, **(step.statics or {}))
    for slot, result in zip(step.outputs, found if isinstance(found, tuple) else (found,), strict=True):
        if result.shape != _shape(function.specs[slot]):
            raise Unsupported  # the program is malformed: numpy's kernels say how
        known[slot] = result


def _from_outside(function: Function, slot: int, graph: Graph) -> Operand | None:
    operand = function.operand(slot)
    if operand is not None and operand.constant is not None and operand.constant.size <= SMALL:
        return graph.constant(operand.constant)
    return operand


def _stages(steps: Sequence[Step], lowered: Sequence[bool]) -> list[int]:
    """The stage of every step, see above."""
    made: dict[int, int] = {}
    stages, latest = [], 0
    for step, can in zip(steps, lowered, strict=True):
        stage = max((made.get(slot, 0) for slot in step.reads), default=0)
        free_view = stage % 2 == 0 and step.op in OPS and OPS[step.op].view
        stage += (stage % 2 == 0) if can and not free_view else stage % 2
        if step.op in ORDERED or step.blocks or any(NO_VALUE < slot < RESERVED for slot in step.inputs):
            stage = latest = max(stage, latest)
        stages.append(stage)
        made.update(dict.fromkeys(step.outputs, stage))
    return stages


def _work(function: Function, step: Step) -> int:
    """Multiply-adds of a matrix product."""
    if not step.contraction or len(step.inputs) < 2:
        return 0
    if step.op in ("conv", "linear"):  # every element of the weight, at each place
        channel = 1 if step.op == "conv" else -1
        out = _shape(function.specs[step.outputs[0]])
        return function.size(step.inputs[1]) * math.prod(out) // max(1, out[channel])
    columns = function.operand(step.inputs[1])
    return function.size(step.inputs[0]) * max(columns.shape[-2:], default=1) if columns else 0


def _joined(function: Function, stages: Sequence[int]) -> list[Step]:
    """The steps by stage, those that nobody waits for left out where they could be handed over."""
    order = sorted(range(len(stages)), key=lambda i: (stages[i], i))
    wanted = set(function.returned)
    needed: set[int] = set()  # steps after which somebody is waiting
    for i in reversed(order):
        step = function.steps[i]
        if step.op in LOWERINGS and not wanted.intersection(step.outputs):
            continue
        needed.add(i)
        wanted.update(step.reads)
    joined: list[Step] = []
    for stage, group in groupby((i for i in order if i in needed), key=lambda i: stages[i]):
        members = [function.steps[i] for i in group]
        if stage % 2:
            later = [function.steps[i] for i in needed if stages[i] > stage]
            joined += _region(function, members, later)
        else:
            joined += members
    return joined


def _region(function: Function, members: Sequence[Step], later: Sequence[Step]) -> Sequence[Step]:
    """One step that does what its members do; the members where onnxruntime does not take their graph."""
    made = dict.fromkeys(slot for step in members for slot in step.outputs)
    read = {slot for step in later for slot in step.reads} | set(function.returned)
    outputs = tuple(slot for slot in made if slot in read)
    graph, known = Graph(), dict[int, Operand]()
    for step in members:
        _lower(function, step, graph, known)
    ends = [graph.add("Identity", known[slot]) for slot in outputs]  # a mere reshape has no node of its own
    outside = dict.fromkeys(slot for step in members for slot in step.inputs if slot not in made and slot != NO_VALUE)
    operands = {slot: function.operand(slot) for slot in outside}
    constants = {slot: o for slot, o in operands.items() if o and o.constant is not None and o.constant.size > SMALL}
    inputs = tuple(slot for slot, o in operands.items() if o and o.constant is None)
    spatial = any(max(o.shape[2:], default=1) != 1 for o in graph.embeds.values())
    embeds = spatial and sum(4 * math.prod(o.shape) for o in graph.embeds.values()) <= EMBEDDED
    try:
        session = Session(
            graph=graph,
            inputs=[(slot, operands[slot], function.dtype(slot)) for slot in inputs],
            constants=[*graph.bound, *(o for o in constants.values() if not (embeds and o.name in graph.embeds))],
            embedded=[o for o in constants.values() if embeds and o.name in graph.embeds],
            outputs=list(zip(outputs, ends, strict=True)),
            members=members,
            template=function.template,
            threads=function.threads,
        )
    except Exception:  # of several kinds; an old version may lack an op
        return members
    name = f"{members[0].name} to {members[-1].name}"
    specs = tuple(function.specs[slot] for slot in outputs)
    return [Step(session, inputs, -1, outputs, False, True, "onnxruntime", name, specs=specs)]
