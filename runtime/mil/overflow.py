"""Says where in the network an op overflowed, and what usually helps."""

from __future__ import annotations

from dataclasses import replace

from satchel.runtime.mil.graph import graph
from satchel.runtime.mil.layers import find_layers
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.precision import OverflowReport
from satchel.runtime.mil.remedies import remedy


def located(report: OverflowReport, package: Package) -> OverflowReport:
    """The report with its layer and its remedy.

    Args:
        report: of a function of `package`.
        package: where the program was read from.
    """
    found = graph(package, report.function)
    node = found.by_op(report.op, report.name)
    layer = find_layers(found).get(node.output) if node else None
    return replace(report, layer=str(layer or ""), remedy=str(remedy(found, node, report.op, report.kind)))
