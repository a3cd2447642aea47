"""Says where in the network an op overflowed, and what usually helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from satchel.runtime.mil.graph import Graph, Node, graph
from satchel.runtime.mil.layers import find_layers
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.precision import OverflowReport
from satchel.runtime.mil.remedies import remedy


def located(
    report: OverflowReport | None, constants: Mapping[str, OverflowReport], package: Package, function: str
) -> OverflowReport | None:
    """What happened first, with its layer and its remedy.

    Args:
        report: of an op of the function, or of one of its inputs; None if none overflowed.
        constants: reports of compressed constants of the package, by name; those that the function reads come first.
        package: where the program was read from.
        function: which was run.
    """
    if report is None and not constants:
        return None
    found = graph(package, function)
    for name, constant in constants.items():
        if reader := _reader(found, name):
            return _with_place(replace(constant, function=function), found, None, reader)
    if report is None:
        return None
    node = found.by_op(report.op, report.name)
    return _with_place(report, found, node, node)


def _reader(found: Graph, constant: str) -> Node | None:
    return next((node for node in found.nodes if constant in node.weights), None)


def _with_place(report: OverflowReport, found: Graph, node: Node | None, place: Node | None) -> OverflowReport:
    layer = find_layers(found).get(place.output) if place else None
    return replace(report, layer=str(layer or ""), remedy=str(remedy(found, node, report.op, report.kind)))
