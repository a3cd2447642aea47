"""Core ML's own plan of where ops run, read through coremltools on a Mac.

Written from the documentation, and not tried on a Mac yet. The reader of a plan takes any object of MLComputePlan's
shape, so that it can be tested on any machine.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from satchel.runtime.backends.coreml_runners import COMPUTE_UNITS
from satchel.runtime.errors import FormatError, MissingPackageError, UsageError

DEVICES = {"MLNeuralEngineComputeDevice": "engine", "MLGPUComputeDevice": "gpu", "MLCPUComputeDevice": "cpu"}
"""Class of coremltools.models.compute_device -> unit."""


def planned_units(package: Path, setting: str) -> dict[str, dict[str, str]]:
    """Where Core ML plans to run the ops of a package on this Mac.

    Args:
        package: a .mlpackage folder or a .mlmodel file; it is compiled into a temporary folder.
        setting: of MLModelConfiguration.computeUnits.

    Returns:
        Function -> name of an op's first output -> "engine", "gpu" or "cpu". Ops of which Core ML says nothing, such
        as constants, are left out.

    Raises:
        UsageError: this is no Mac.
        MissingPackageError: coremltools is not installed.
        FormatError: Core ML refuses the package.
    """
    if sys.platform != "darwin":
        hint = "run the same command on a Mac; without --compare the forecast works here"
        raise UsageError(
            "Core ML's own plan (MLComputePlan)", got=sys.platform, wanted="macOS 14.4 or later", hint=hint
        )
    try:
        import coremltools
        from coremltools.models.compute_plan import MLComputePlan
    except ImportError as error:
        raise MissingPackageError("--compare needs coremltools", got=error, hint="pip install coremltools") from error
    units = getattr(coremltools.ComputeUnit, COMPUTE_UNITS[setting])
    compiled = None
    try:
        compiled = coremltools.models.utils.compile_model(str(package))
        return units_of(MLComputePlan.load_from_path(compiled, units))
    except (OSError, RuntimeError, ValueError) as error:
        raise FormatError("Core ML makes no plan of this package", got=error, wanted="one that it compiles") from error
    finally:
        if compiled:
            shutil.rmtree(compiled, ignore_errors=True)


def units_of(plan: Any) -> dict[str, dict[str, str]]:
    """The preferred unit of each op of an MLComputePlan: function -> name of the first output -> unit."""
    program = plan.model_structure.program
    if program is None:
        raise FormatError("plan of Core ML", got="a model of another kind", wanted="an ML Program")
    return {name: dict(_units(plan, function.block)) for name, function in program.functions.items()}


def _units(plan: Any, block: Any) -> Iterator[tuple[str, str]]:
    for op in block.operations:
        for inner in op.blocks:
            yield from _units(plan, inner)
        usage = plan.get_compute_device_usage_for_mlprogram_operation(op)
        unit = DEVICES.get(type(usage.preferred_compute_device).__name__) if usage is not None else None
        if unit and op.outputs:
            yield op.outputs[0].name, unit
