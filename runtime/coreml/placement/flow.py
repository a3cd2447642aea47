"""The flow of data between ops, the runs of ops on one unit that follow from it, and what passes between them.

Core ML may run ops in any order that their data allows. The order here is one with few changes of unit: ops of the
unit at hand go on for as long as any is ready. A run is a stretch of ops on one unit in that order; a crossing is a
pair of runs on different units of which the second reads a value that the first made, however many values they are.
Constants, inputs and outputs of the function cross nothing. A loop counts as one round of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp, elements

READ, WRITE = "read_state", "write_state"


@dataclass(frozen=True)
class Edge:
    """A value on its way.

    Attributes:
        source, reader: places of the ops among those that run.
        value: its name.
        nbytes: its size.
    """

    source: int
    reader: int
    value: str
    nbytes: int


@dataclass(frozen=True)
class Flow:
    """What the ops of a function wait for.

    Attributes:
        ops: those that run, in the program's order.
        edges: of data.
        waits: for each op, the places of the ops that must be done before, be it only since they read a state that
            this one changes.
    """

    ops: tuple[SurveyedOp, ...]
    edges: tuple[Edge, ...]
    waits: tuple[frozenset[int], ...]


def flow(function: FunctionSurvey) -> Flow:
    """Of the ops of a function that run, those in blocks too."""
    ops = tuple(op for op in function.ops if op.computes)
    made = {name: i for i, op in enumerate(ops) for name in op.outputs}
    bound = dict(_bound(ops))
    edges: dict[tuple[int, str], Edge] = {}
    waits: list[set[int]] = [set() for _ in ops]
    for i, op in enumerate(ops):
        for name in _read(op, bound):
            source = made.get(name, i)
            if source < i:
                edges[i, name] = Edge(source, i, name, _nbytes(function, name))
    for edge in (*edges.values(), *_through_states(function, ops, waits)):
        edges[edge.reader, edge.value] = edge
        waits[edge.reader].add(edge.source)
    in_order = sorted(edges.values(), key=lambda e: (e.source, e.value, e.reader))  # a proto's maps have none
    return Flow(ops, tuple(in_order), tuple(frozenset(w) for w in waits))


def _bound(ops: Iterable[SurveyedOp]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of a block's input -> what the op that has the block reads."""
    for op in ops:
        for block in op.proto.blocks:
            yield from ((value.name, op.reads) for value in block.inputs)


def _read(op: SurveyedOp, bound: dict[str, tuple[str, ...]]) -> dict[str, None]:
    """Names of the values that an op reads, and of those that its blocks give."""
    names = [*op.reads, *(name for block in op.proto.blocks for name in block.outputs)]
    found: dict[str, None] = {}
    seen: set[str] = set()
    while names:
        name = names.pop(0)
        if name not in seen:
            seen.add(name)
            names += bound.get(name, ())
            found.setdefault(name)
    return found


def _nbytes(function: FunctionSurvey, name: str) -> int:
    found = function.types.get(name)
    return found[0].nbytes(elements(found[1])) if found else 0


def _through_states(function: FunctionSurvey, ops: Sequence[SurveyedOp], waits: list[set[int]]) -> list[Edge]:
    """What a write hands to later reads of the same state; a write waits for the reads before it."""
    edges: list[Edge] = []
    written: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    for i, op in enumerate(ops):
        state = next((v for v in op.arguments.get("input", ()) if isinstance(v, str)), "")
        if op.type == READ:
            readers.setdefault(state, []).append(i)
            if state in written:
                edges.append(Edge(written[state], i, state, _nbytes(function, state)))
        elif op.type == WRITE:
            waits[i].update(readers.pop(state, []), [written[state]] if state in written else [])
            written[state] = i
    return edges


# ---- runs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """Ops that follow each other on one unit.

    Attributes:
        unit: "engine", "gpu" or "cpu".
        ops: their places among the ops that run.
    """

    unit: str
    ops: tuple[int, ...]


@dataclass(frozen=True)
class Crossing:
    """A pair of runs on different units, and what the second reads of the first.

    Attributes:
        source, reader: places of the runs.
        values: names of what is handed over, each once.
        nbytes: of all of them.
    """

    source: int
    reader: int
    values: tuple[str, ...]
    nbytes: int


def runs(waits: Sequence[frozenset[int]], units: Sequence[str]) -> tuple[Run, ...]:
    """The ops in an order with few changes of unit; the best of beginning with any unit.

    Args:
        waits: for each op, the places of the ops that must be done before.
        units: of each op.
    """
    tried = [_ordered(waits, units, first) for first in dict.fromkeys(units)]
    return min(tried, key=len, default=())


def _ordered(waits: Sequence[frozenset[int]], units: Sequence[str], unit: str) -> tuple[Run, ...]:
    left = [len(w) for w in waits]
    followers: list[list[int]] = [[] for _ in waits]
    for i, before in enumerate(waits):
        for j in before:
            followers[j].append(i)
    ready: dict[str, list[int]] = {u: [i for i, u2 in enumerate(units) if u2 == u and not left[i]] for u in set(units)}
    for heap in ready.values():
        heapify(heap)
    done: list[Run] = []
    while any(ready.values()):
        if not ready[unit]:
            unit = min((u for u in ready if ready[u]), key=lambda u: ready[u][0])
        ops = []
        while ready[unit]:
            ops.append(heappop(ready[unit]))
            for j in followers[ops[-1]]:
                left[j] -= 1
                if not left[j]:
                    heappush(ready[units[j]], j)
        done.append(Run(unit, tuple(ops)))
    return tuple(done)


def crossings(edges: Iterable[Edge], found: Sequence[Run]) -> tuple[Crossing, ...]:
    """Pairs of runs on different units between which values pass, in order."""
    place = {op: i for i, run in enumerate(found) for op in run.ops}
    passed: dict[tuple[int, int], dict[str, int]] = {}
    for edge in edges:
        pair = place[edge.source], place[edge.reader]
        if found[pair[0]].unit != found[pair[1]].unit:
            passed.setdefault(pair, {})[edge.value] = edge.nbytes
    return tuple(Crossing(*pair, tuple(v), sum(v.values())) for pair, v in sorted(passed.items()))
