"""Two conversions of one network, of other types and precisions, are the same op by op."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from networks import NETWORKS

from satchel.runtime import mil
from satchel.runtime.coreml.difference import Side, compare

Package = Callable[[str, str], Path]

# Those that test_networks.py converts in both types anyway.
NAMES = (
    "mobilenet", "vit", "unet", "video", "activations", "image filter", "lstm", "gru", "bert", "llama with states",
    "audio", "while loop", "detector", "palettized", "quantized in blocks",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_op_departs_between_types_of_one_network(network_package: Package, name: str) -> None:
    full, half = (mil.load(network_package(name, precision)) for precision in ("fp32", "fp16"))
    report = compare(Side(full, "fp32"), Side(half, "fp16", None, "fp16"), NETWORKS[name].calls()[0])
    assert report.equal, (report.first, report.clues)
    assert report.only[0] <= len(report.rows) // 2, "most ops of one are found in the other"
    assert {o.name for o in report.outputs} == {spec.name for spec in full.outputs}
    assert report.overflows == (None, None)
