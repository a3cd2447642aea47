"""A forecast beside a plan of Core ML's: the comparison, and the reader of plans on coremltools' own classes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from coremltools.models import compute_device, compute_plan
from mil_programs import mb
from rule_programs import dense, program

from satchel.cli.coreml.compute_plan import planned_units, units_of
from satchel.runtime.coreml.placement import FunctionForecast, forecast_package
from satchel.runtime.coreml.placement.comparison import Difference, compare
from satchel.runtime.coreml.survey import survey
from satchel.runtime.errors import FormatError, MissingPackageError, UsageError
from satchel.runtime.mil.package import open_package

ENGINE, GPU, CPU = (
    object.__new__(c)
    for c in (
        compute_device.MLNeuralEngineComputeDevice,
        compute_device.MLGPUComputeDevice,
        compute_device.MLCPUComputeDevice,
    )
)


class FakePlan:
    """What MLComputePlan is to its reader: a structure of coremltools' own classes, and devices by output."""

    def __init__(self, path: Path, devices: dict[str, Any]) -> None:
        self.devices = devices
        block = open_package(path).block("main")
        function = compute_plan.MLModelStructureProgramFunction([], _block(block))
        program = compute_plan.MLModelStructureProgram({"main": function})
        self.model_structure = compute_plan.MLModelStructure(None, program, None)

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        device = self.devices.get(operation.outputs[0].name) if operation.outputs else None
        return compute_plan.MLComputePlanDeviceUsage(device, [device]) if device else None


def _block(block: Any) -> Any:
    value = lambda name: compute_plan.MLModelStructureProgramNamedValueType(name, None)  # noqa: E731
    operations = [
        compute_plan.MLModelStructureProgramOperation(
            {}, f"ios18.{op.type}", [value(o.name) for o in op.outputs], [_block(b) for b in op.blocks], None
        )
        for op in block.operations
    ]
    return compute_plan.MLModelStructureProgramBlock([], operations, list(block.outputs))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def body(x: Any) -> Any:
        y = mb.conv(x=x, weight=dense(128, 128, 1, 1), name="first")
        y = mb.mod(x=y, y=np.float16(3), name="rest")
        even = mb.equal(
            x=mb.reduce_sum(x=y, axes=[0, 1, 2, 3], keep_dims=False, name="sum"), y=np.float16(0), name="eq"
        )
        chosen = mb.cond(
            pred=even, _true_fn=lambda: mb.exp(x=y, name="e"), _false_fn=lambda: mb.relu(x=y, name="r"), name="cond"
        )
        return mb.conv(x=chosen, weight=dense(128, 128, 1, 1), name="last")

    made = program(body, {"x": ((1, 128, 1, 128), "float16")})
    return made(tmp_path_factory.mktemp("plan"))


@pytest.fixture(scope="module")
def forecast(package: Path) -> FunctionForecast:
    (function,) = forecast_package(package, "H16").functions
    return function


def outputs(package: Path) -> dict[str, str]:
    """Name of an op -> that of its first output."""
    return {op.name: op.outputs[0] for op in survey(open_package(package), "main").ops if op.computes}


def test_a_plan_that_agrees_and_one_that_does_not(package: Path, forecast: FunctionForecast) -> None:
    name = outputs(package)
    same = {o: {"engine": ENGINE, "cpu": CPU}[forecast.placements["cpuAndNeuralEngine"].units[i]]
            for i, o in enumerate(name.values())}  # fmt: skip
    agreed = compare(forecast, "cpuAndNeuralEngine", units_of(FakePlan(package, same))["main"])
    assert (agreed.agreeing, agreed.compared, agreed.unplanned) == (len(name), len(name), 0)
    assert agreed.differences == ()

    other = same | {name["rest"]: ENGINE, name["last"]: GPU}
    del other[name["e"]]
    found = compare(forecast, "cpuAndNeuralEngine", units_of(FakePlan(package, other))["main"])
    assert found.differences == (
        Difference("mod", "rest", "cpu", "engine", "NE12a"),
        Difference("conv", "last", "engine", "gpu", ""),
    )
    assert (found.unplanned, found.compared, found.agreeing) == (1, len(name) - 1, len(name) - 3)
    assert found.counts["engine", "gpu"] == found.counts["cpu", "engine"] == 1
    shown = found.to_json()
    assert sum(row["ops"] for row in shown["counts"]) == shown["compared"]
    assert [d["name"] for d in shown["differences"]] == ["rest", "last"]


def test_ops_of_blocks_are_read_and_devices_that_are_not_known_left_out(package: Path) -> None:
    name = outputs(package)
    found = units_of(FakePlan(package, {name["e"]: CPU, name["r"]: GPU, name["sum"]: SimpleNamespace()}))
    assert found == {"main": {name["e"]: "cpu", name["r"]: "gpu"}}


def test_a_plan_of_another_kind_of_model_is_refused(package: Path) -> None:
    plan = FakePlan(package, {})
    plan.model_structure = compute_plan.MLModelStructure(None, None, None)
    with pytest.raises(FormatError, match="another kind"):
        units_of(plan)


def test_only_a_mac_has_a_plan(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(UsageError) as caught:
        planned_units(package, "all")
    assert (caught.value.got, "macOS" in str(caught.value.wanted)) == ("linux", True)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingPackageError, match="coremltools"):
        planned_units(package, "all")


def test_on_a_mac_the_package_is_compiled_and_what_is_compiled_goes(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import coremltools

    compiled, asked = tmp_path / "model.mlmodelc", []
    name = outputs(package)

    def load(path: str, units: Any) -> FakePlan:
        asked.append((path, units))
        return FakePlan(package, {name["first"]: ENGINE})

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(coremltools.models.utils, "compile_model", lambda path: compiled.mkdir() or str(compiled))
    monkeypatch.setattr(compute_plan.MLComputePlan, "load_from_path", staticmethod(load))
    assert planned_units(package, "cpuAndNeuralEngine") == {"main": {name["first"]: "engine"}}
    assert asked == [(str(compiled), coremltools.ComputeUnit.CPU_AND_NE)]
    assert not compiled.exists()

    def fail(path: str, units: Any) -> Any:
        raise RuntimeError("no such op")

    monkeypatch.setattr(compute_plan.MLComputePlan, "load_from_path", staticmethod(fail))
    with pytest.raises(FormatError, match="no such op"):
        planned_units(package, "all")
    assert not compiled.exists()
