"""Torch networks, converted by coremltools and run by our interpreter, against torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from networks import NETWORKS

from satchel import coreml
from satchel.runtime import mil

Package = Callable[[str, str], Path]


def op_types(block: Any) -> Iterator[str]:
    """Types of the ops of a block and of those inside it."""
    for op in block.operations:
        yield op.type
        for inner in op.blocks:
            yield from op_types(inner)


def distance(have: np.ndarray, want: np.ndarray) -> float:
    """Largest difference, relative to the largest wanted value; whole numbers must be equal."""
    assert have.shape == want.shape
    if want.dtype.kind in "iub":
        return float(np.any(have != want))
    return float(np.max(np.abs(have.astype(np.float64) - want)) / np.max(np.abs(want)))


@pytest.mark.parametrize("name", NETWORKS)
def test_as_torch_in_fp32(network_package: Package, name: str) -> None:
    network, program = NETWORKS[name], mil.load(network_package(name, "fp32"))
    found = set(op_types(program.package.block(program.functions[0])))
    assert set(network.ops) <= found, "the conversion no longer makes the ops that this network is about"
    assert_close(name, program, "fp32", network.fp32)


# One of each kind: the rest would take as long to convert again, and differ little.
IN_FP16 = (
    "mobilenet", "vit", "unet", "video", "activations", "image filter", "lstm", "gru", "bert", "llama with states",
    "audio", "while loop", "detector", "palettized", "quantized in blocks",
)  # fmt: skip


@pytest.mark.parametrize("name", IN_FP16)
def test_as_torch_in_fp16(network_package: Package, name: str) -> None:
    assert_close(name, mil.load(network_package(name, "fp16")), "fp16", NETWORKS[name].fp16)


def assert_close(name: str, program: mil.Program, precision: str, limit: float) -> None:
    """Runs every call of a network and compares it with torch."""
    network = NETWORKS[name]
    state = program.make_state() if program.states else None
    names = [spec.name for spec in program.outputs]
    for arrays, want in zip(network.calls(), network.reference(), strict=True):
        have = program.run(arrays, state=state, precision=precision)
        assert len(names) == len(want)
        worst = [distance(have[n], w) for n, w in zip(names, want, strict=True)]
        assert max(worst) <= limit, f"{dict(zip(names, worst, strict=True))}"


def test_an_image_goes_in_and_out_as_an_app_has_it(network_package: Package) -> None:
    network, model = NETWORKS["image filter"], coreml.load(network_package("image filter", "fp32"))
    (arrays,), ((want,),) = network.calls(), network.reference()
    rows = arrays["image"][0].transpose(1, 2, 0).astype(np.uint8)  # [height, width, red green blue]
    (picture,) = (np.asarray(v) for v in model.predict({"image": rows}).values())
    assert model.inputs["image"].kind == "image" and picture.dtype == np.uint8
    wanted = want[0].transpose(1, 2, 0)
    assert picture.shape == (*wanted.shape[:2], 4), "an image in color has an alpha channel"
    assert np.max(np.abs(picture[..., :3] - wanted)) <= 0.501


def test_two_networks_as_functions_of_one_package(network_package: Package, tmp_path: Path) -> None:
    descriptor = ct.utils.MultiFunctionDescriptor()
    names = {"see": "vit", "hear": "audio"}
    for function, name in names.items():
        descriptor.add_function(str(network_package(name, "fp32")), "main", function)
    descriptor.default_function_name = "see"
    path = tmp_path / "both.mlpackage"
    ct.utils.save_multifunction(descriptor, str(path))
    program = mil.load(path)
    assert program.functions == ("see", "hear")
    for function, name in names.items():
        network = NETWORKS[name]
        (arrays,), (want,) = network.calls(), network.reference()
        have = program.run(arrays, function)
        order = [spec.name for spec in program.signature(function)[1]]
        assert max(distance(have[n], w) for n, w in zip(order, want, strict=True)) <= network.fp32
