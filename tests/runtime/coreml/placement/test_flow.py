"""The order of ops, the runs and the crossings: on graphs made by hand, and against a search through every order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mil_programs import mb, save

from satchel.runtime.coreml.placement.flow import Edge, Flow, crossings, flow, runs
from satchel.runtime.coreml.survey import survey
from satchel.runtime.mil.package import open_package

E, C, G = "engine", "cpu", "gpu"


def waits(count: int, edges: Sequence[tuple[int, int]]) -> list[frozenset[int]]:
    return [frozenset(a for a, b in edges if b == i) for i in range(count)]


def summary(units: Sequence[str], edges: Sequence[tuple[int, int]]) -> tuple[list[str], list[tuple[int, int, int]]]:
    """(units of the runs, (from, to, values) of the crossings) of a graph in which each op makes one value."""
    found = runs(waits(len(units), edges), units)
    passed = crossings([Edge(a, b, f"v{a}", 8) for a, b in edges], found)
    assert all(c.nbytes == 8 * len(c.values) for c in passed)
    return [run.unit for run in found], [(c.source, c.reader, len(c.values)) for c in passed]


def test_graphs_by_hand() -> None:
    chain = [(0, 1), (1, 2), (2, 3)]
    assert summary([E, E, E, E], chain) == ([E], [])
    assert summary([E, C, C, E], chain) == ([E, C, E], [(0, 1, 1), (1, 2, 1)])
    assert summary([E, C, E, C], chain) == ([E, C, E, C], [(0, 1, 1), (1, 2, 1), (2, 3, 1)])
    assert summary([E, G, C, E], chain) == ([E, G, C, E], [(0, 1, 1), (1, 2, 1), (2, 3, 1)])
    # What depends on inputs alone is done first, wherever it stands.
    assert summary([E, C, E, C, E], [(0, 2), (1, 2), (2, 4), (3, 4)]) == ([C, E], [(0, 1, 2)])
    # One value that several ops of a run read is handed over once; a value read in two runs twice.
    assert summary([C, E, E], [(0, 1), (0, 2)]) == ([C, E], [(0, 1, 1)])
    assert summary([C, E, C, E], [(0, 1), (1, 2), (2, 3), (0, 3)]) == (
        [C, E, C, E],
        [(0, 1, 1), (0, 3, 1), (1, 2, 1), (2, 3, 1)],
    )
    # Two branches on the CPU between the same runs of the engine are one run, two crossings.
    assert summary([E, C, C, E], [(0, 1), (0, 2), (1, 3), (2, 3)]) == ([E, C, E], [(0, 1, 1), (1, 2, 2)])
    assert summary([], []) == ([], [])


@st.composite
def graphs(draw: st.DrawFn, units: tuple[str, ...]) -> tuple[list[str], list[tuple[int, int]]]:
    count = draw(st.integers(1, 8))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return draw(st.lists(st.sampled_from(units), min_size=count, max_size=count)), edges


def fewest(units: Sequence[str], edges: Sequence[tuple[int, int]]) -> int:
    """The fewest runs of any order, by trying all of them."""
    before = waits(len(units), edges)
    states = {(frozenset[int](), "")}
    for count in range(1, len(units) + 1):
        reached: set[tuple[frozenset[int], str]] = set()
        stack = [(done, unit) for done, last in states for unit in set(units) - {last}]
        while stack:
            state = stack.pop()
            if state in reached:
                continue
            reached.add(state)
            done, unit = state
            ready = [i for i in range(len(units)) if i not in done and before[i] <= done and units[i] == unit]
            stack += [(done | {i}, unit) for i in ready]
        if any(len(done) == len(units) for done, _ in reached):
            return count
        states = reached
    raise AssertionError


@given(graphs((E, C)))
def test_two_units_change_as_seldom_as_can_be(graph: tuple[list[str], list[tuple[int, int]]]) -> None:
    units, edges = graph
    assert len(runs(waits(len(units), edges), units)) == fewest(units, edges)


@given(graphs((E, C, G)))
def test_an_order_keeps_to_the_data(graph: tuple[list[str], list[tuple[int, int]]]) -> None:
    units, edges = graph
    found = runs(waits(len(units), edges), units)
    order = [i for run in found for i in run.ops]
    assert sorted(order) == list(range(len(units)))
    assert all(order.index(a) < order.index(b) for a, b in edges)
    assert all(units[i] == run.unit for run in found for i in run.ops)
    assert all(a.unit != b.unit for a, b in pairwise(found))
    assert len(found) >= fewest(units, edges)
    place = {i: n for n, run in enumerate(found) for i in run.ops}
    between = {(place[a], place[b]) for a, b in edges if units[a] != units[b]}
    assert {(c.source, c.reader) for c in crossings([Edge(a, b, str(a), 1) for a, b in edges], found)} == between


# ---- of programs ---------------------------------------------------------------------------------------------------


def of_program(folder: Path, body: Any, inputs: Any, states: Any = None) -> tuple[Flow, dict[tuple[str, str], int]]:
    """(flow, (name of maker, name of reader) -> bytes)."""
    data = flow(survey(open_package(save(folder, body, inputs, states)), "main"))
    names = [op.name for op in data.ops]
    return data, {(names[e.source], names[e.reader]): e.nbytes for e in data.edges}


def test_constants_and_inputs_are_no_edges(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        a = mb.exp(x=x, name="a")
        return mb.add(x=mb.add(x=a, y=np.ones((2, 8), np.float16), name="b"), y=mb.add(x=a, y=x, name="c"), name="d")

    _, edges = of_program(tmp_path, body, {"x": ((2, 8), "float16")})
    assert edges == {("a", "b"): 32, ("a", "c"): 32, ("b", "d"): 32, ("c", "d"): 32}


def test_states_hand_over_what_was_written(tmp_path: Path) -> None:
    def body(x: Any, s: Any) -> Any:
        first = mb.read_state(input=s, name="read")
        mb.coreml_update_state(state=s, value=mb.add(x=first, y=x, name="sum"), name="write")
        return mb.add(x=first, y=x, name="y")

    data, edges = of_program(tmp_path, body, {"x": ((1, 8), "float16")}, {"s": ((1, 8), "float16")})
    write = next(i for i, op in enumerate(data.ops) if op.type == "write_state")
    read = next(i for i, op in enumerate(data.ops) if op.name == "read")
    assert read in data.waits[write]
    again = [e for e in data.edges if e.source == write]
    assert [e.value for e in again] in ([], ["s"])  # coremltools reads the state again after an update
    assert edges["read", "sum"] == 16


def test_blocks_wait_for_what_goes_in_and_the_op_for_what_comes_out(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        start = mb.exp(x=x, name="start")
        less = lambda i, _: mb.less(x=i, y=3, name="less")  # noqa: E731
        step = lambda i, y: (mb.add(x=i, y=1, name="next"), mb.mul(x=y, y=y, name="squared"))  # noqa: E731
        return mb.while_loop(_cond=less, _body=step, loop_vars=(np.int32(0), start), name="loop")[1]

    data, edges = of_program(tmp_path, body, {"x": ((1, 8), "float16")})
    loop = data.ops[-1].name
    assert {("start", "squared"), ("squared", loop), ("less", loop), ("start", loop)} <= set(edges)
