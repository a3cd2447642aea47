"""Walks two programs side by side and finds the first op whose result departs.

Neither program's values are kept: each pair is measured as soon as both sides have it. A copy is held only of a value
that the second program makes earlier than the first.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from satchel.runtime.coreml.alignment import align
from satchel.runtime.coreml.difference_report import Compared, Output, Report
from satchel.runtime.coreml.measures import Measure, measure, rms, worst
from satchel.runtime.coreml.tolerances import CANCELLING, least_size, tolerance
from satchel.runtime.coreml.trace import Visit, key_of, walk
from satchel.runtime.mil.graph import UNIT_ROUNDOFF, Graph, Node, graph
from satchel.runtime.mil.interpreter import Watch
from satchel.runtime.mil.layers import Layer, find_layers
from satchel.runtime.mil.precision import check_precision
from satchel.runtime.mil.program import Program
from satchel.runtime.mil.steps import Executable
from satchel.runtime.mil.steps import walk as every_step


class Seen(Protocol):
    """A value of one side, as it has just been made."""

    @property
    def key(self) -> str:
        """Its name."""
        ...

    @property
    def operands(self) -> Sequence[Any]:
        """What it was made of; nothing where that is not known."""
        ...

    @property
    def results(self) -> Sequence[Any]:
        """It, and what was made with it."""
        ...


@dataclass(frozen=True)
class Held:
    """A copy of a value, for later."""

    key: str
    operands: Sequence[Any]
    results: Sequence[Any]


@dataclass(frozen=True)
class Side:
    """A program to be walked.

    Attributes:
        program: loaded.
        name: what to call it.
        function: which one; None is the default function.
        precision: "fp32" or "fp16".
    """

    program: Program
    name: str
    function: str | None = None
    precision: str = "fp32"

    def executable(self) -> Executable:
        """The compiled function."""
        return self.program.executable(self.function, check_precision(self.precision))

    def graph(self) -> Graph:
        """Its nodes."""
        return graph(self.program.package, self.function)

    def walk(
        self, inputs: Mapping[str, Any], watch: Watch, returned: dict[str, Any] | None = None, seed: int = 0
    ) -> Iterator[Visit]:
        """Each step as it has run, the states zero; what the function returns goes into `returned` at the end."""
        self.program.limit.allow(inputs=sum(getattr(value, "nbytes", 0) for value in inputs.values()))
        found = yield from walk(self.executable(), inputs, self.program.make_state(self.function), watch, seed)
        if returned is not None:
            returned.update(found)


def compare(
    a: Side, b: Side, inputs: Mapping[str, Any], other_inputs: Mapping[str, Any] | None = None, *,
    limit: float | None = None, seed: int = 0,
) -> Report:  # fmt: skip
    """Walks two programs on the same inputs, their states zero.

    Args:
        a, b: the programs; a is the reference.
        inputs: of a, and of b where `other_inputs` is None.
        other_inputs: of b, where it wants other types.
        limit: error allowed everywhere, instead of tolerances.py's.
        seed: of random ops.
    """
    graphs, executables, watches = (a.graph(), b.graph()), (a.executable(), b.executable()), (Watch(), Watch())
    given = (inputs, inputs if other_inputs is None else other_inputs)
    ran = [{key_of(s) for s in every_step(e.steps)} for e in executables]
    pairs = [(x, y) for x, y in align(*graphs) if x.output in ran[0] and y.output in ran[1]]
    returned: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    walk_a, walk_b = a.walk(given[0], watches[0], returned[0], seed), b.walk(given[1], watches[1], returned[1], seed)
    rows, clues = judge(pairs, graphs[0], lockstep(walk_a, walk_b, {x.output: y.output for x, y in pairs}), limit)
    overflows = [
        s.program.overflow(e.name, w) if s.precision == "fp16" else None
        for s, e, w in zip((a, b), executables, watches, strict=True)
    ]
    only = (len(graphs[0].nodes) - len(pairs), len(graphs[1].nodes) - len(pairs))
    outputs = tuple(_outputs(graphs, returned, limit))
    return Report((a.name, b.name), tuple(rows), clues, only, outputs, (overflows[0], overflows[1]))


def _outputs(
    graphs: tuple[Graph, Graph], returned: tuple[dict[str, Any], dict[str, Any]], limit: float | None
) -> Iterator[Output]:
    """Outputs of one name; all of them in order where no name is the same and there are as many."""
    a, b = returned
    names = [(n, n) for n in a if n in b]
    if not names and len(a) == len(b):
        names = list(zip(a, b, strict=True))
    for x, y in names:
        made = [found.made_by.get(name) for found, name in zip(graphs, (x, y), strict=True)]
        nodes = [node for node in made if node] or [_given(x)]  # an input that is an output was made by no op
        allowed = tolerance(nodes[0], nodes[-1], limit)
        yield Output(x, measure(a[x], b[y], least_size(nodes[0], nodes[-1])), allowed)


def _given(name: str) -> Node:
    return Node(0, "input", name, (name,), "", (), (), (), {}, 0, UNIT_ROUNDOFF["float16"])


# --- two walks in step ---


def lockstep(a: Iterator[Seen], b: Iterator[Seen], partner: Mapping[str, str]) -> Iterator[tuple[Seen, Seen]]:
    """Pairs of values, as early as both sides have them; the nth time of one with the nth of the other.

    Args:
        a, b: walks.
        partner: key of a's value -> key of b's.
    """
    wanted = set(partner.values())
    held: dict[tuple[str, int], Seen] = {}
    times_a: Counter[str] = Counter()
    times_b: Counter[str] = Counter()
    for seen in a:
        if seen.key in partner:
            key = (partner[seen.key], times_a[seen.key])
            times_a[seen.key] += 1
            found = held.pop(key, None) or _advance(b, key, wanted, times_b, held)
            if found is not None:
                yield seen, found
    for _ in b:  # to its end, so that an overflow there is not missed
        pass


def _advance(
    b: Iterator[Seen], key: tuple[str, int], wanted: set[str], times: Counter[str], held: dict[tuple[str, int], Seen]
) -> Seen | None:
    """Walks b on until the value of this key; holds copies of others on the way. None where b never has it."""
    for seen in b:
        if seen.key in wanted:
            found = (seen.key, times[seen.key])
            times[seen.key] += 1
            if found == key:
                return seen
            held[found] = Held(seen.key, (), [_copy(r) for r in seen.results])
    return None


def _copy(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray | np.generic) else value


# --- judging ---


@dataclass
class _Judge:
    found: Graph
    partners: Mapping[str, tuple[Node, Node]]
    limit: float | None
    layers: Mapping[str, Layer]
    measures: dict[str, Measure] = field(default_factory=dict)
    clues: tuple[str, ...] = ()
    departed: bool = False

    def see(self, a: Seen, b: Seen) -> None:
        """Measures a pair, and looks closer at the first that departs."""
        node, other = self.partners[a.key]
        now = _measured(node, other, a, b)
        self.measures[a.key] = worst([now, self.measures.get(a.key, now)])
        if not self.departed and not now.error <= tolerance(node, other, self.limit).value:
            self.departed = True
            self.clues = (*_clues(a, b), *_settings(node, other))

    def rows(self) -> Iterator[Compared]:
        """The pairs in order."""
        for key, (node, other) in self.partners.items():
            if key in self.measures:
                allowed = tolerance(node, other, self.limit)
                growth = self._growth(node, self.measures[key].error)
                yield Compared(node, other, self.measures[key], allowed, self.layers.get(key), growth)

    def _growth(self, node: Node, error: float) -> float | None:
        before = [self.measures[p.output].error for p in self.found.producers(node) if p.output in self.measures]
        growth = error / max(*before, 2.0**-24) if before and error else math.inf
        return growth if math.isfinite(growth) else None


def judge(
    pairs: Iterable[tuple[Node, Node]], found: Graph, values: Iterable[tuple[Seen, Seen]], limit: float | None
) -> tuple[list[Compared], tuple[str, ...]]:
    """Measures pairs of values.

    Args:
        pairs: the nodes of either side, in the order of the first.
        found: the first program's nodes.
        values: pairs of values, the first of each named as the first node.
        limit: error allowed everywhere, instead of tolerances.py's.

    Returns:
        (a row for each pair of which there were values, clues about the first that departs).
    """
    judged = _Judge(found, {x.output: (x, y) for x, y in pairs}, limit, find_layers(found))
    for a, b in values:
        judged.see(a, b)
    return list(judged.rows()), judged.clues


def _measured(node: Node, other: Node, a: Seen, b: Seen) -> Measure:
    terms = max((rms(x) for x in a.operands), default=0.0) if node.op in CANCELLING else 0.0
    terms = max(terms, least_size(node, other))
    return worst([measure(x, y, terms) for x, y in zip(a.results, b.results, strict=False)])


def _clues(a: Seen, b: Seen) -> Iterator[str]:
    """What of the inputs is not the same."""
    if len(a.operands) != len(b.operands):
        return
    for i, (x, y) in enumerate(zip(a.operands, b.operands, strict=True)):
        if isinstance(x, np.ndarray | np.generic) and isinstance(y, np.ndarray | np.generic):
            m = measure(x, y)
            what = m.note or (f"differs by {m.error:.2g} of its size" if m.error else "is the same")
            yield f"input {i} {list(x.shape)} {what}"


def _settings(a: Node, b: Node) -> Iterator[str]:
    """Which of the settings are not the same."""
    if a.op != b.op:
        yield f"the ops are {a.op} and {b.op}"
    for name in sorted({*a.settings, *b.settings}):
        x, y = a.settings.get(name), b.settings.get(name)
        if not _same(x, y):
            yield f"{name} is {_shown(x)} and {_shown(y)}"


def _same(x: Any, y: Any) -> bool:
    if x is None or y is None:
        return (x is None) == (y is None)
    return np.shape(x) == np.shape(y) and bool(np.all(np.asarray(x) == np.asarray(y)))


def _shown(x: Any) -> str:
    return "absent" if x is None else str(np.asarray(x).tolist())
