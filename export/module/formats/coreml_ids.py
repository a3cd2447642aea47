"""Ids of embeddings that follow from shapes alone, such as positions: coremltools would look their rows up while it
converts, and put those in the table's place. Here they also depend on an input, which adds nothing to them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch.fx import Graph, Node

from satchel.export.module.program import Program, calls, module

aten = torch.ops.aten
SHAPES = (aten.sym_size.int,)


def live_ids(program: Program) -> Program:
    """The program, whose embeddings' ids all depend on an input's values."""
    found = program.copy()
    graph = found.graph.graph
    zero: Node | None = None
    for node in calls(graph, [aten.embedding.default]):
        ids: Any = node.args[1]
        if _sees_inputs(ids):
            continue
        zero = _zero(graph) if zero is None else zero
        if zero is None:
            return program
        with graph.inserting_before(node):
            cast = graph.call_function(aten._to_copy.default, (zero,), {"dtype": ids.meta["val"].dtype})
            moved = graph.call_function(aten.add.Tensor, (ids, cast))
        moved.meta = dict(ids.meta)
        node.args = (node.args[0], moved, *node.args[2:])
    return replace(found, graph=module(found.graph, graph))


def _sees_inputs(node: Node) -> bool:
    """Whether an input's values, and not only its shape, have a say in it."""
    seen, left = set[Node](), [node]
    while left:
        here = left.pop()
        if here.op == "placeholder":
            return True
        if here not in seen and here.target not in SHAPES:
            seen.add(here)
            left.extend(here.all_input_nodes)
    return False


def _zero(graph: Graph) -> Node | None:
    """False, [1], which no converter knows to be: the first number of an input is more than itself."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    numbers = [node for node in inputs if node.meta["val"].dtype != torch.bool]
    if not numbers:
        return None
    with graph.inserting_after(inputs[-1]):
        flat = graph.call_function(aten.flatten.using_ints, (numbers[0],))
    with graph.inserting_after(flat):
        one = graph.call_function(aten.slice.Tensor, (flat, 0, 0, 1))
    with graph.inserting_after(one):
        return graph.call_function(aten.gt.Tensor, (one, one))
