"""Small ML Programs, built with coremltools' builder and saved as packages as built, for tests of our interpreter."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

logging.getLogger("coremltools").setLevel(logging.ERROR)
import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.backend.mil.load import CoreMLProtoExporter, MILProtoExporter  # noqa: E402
from coremltools.converters.mil.mil import Function, Program, types  # noqa: E402

from satchel.runtime import mil  # noqa: E402
from satchel.runtime.mil.ops import OPS  # noqa: E402
from satchel.runtime.mil.steps import Step  # noqa: E402

TYPES = {"float16": types.fp16, "float32": types.fp32, "int32": types.int32, "bool": types.bool}
Specs = Mapping[str, tuple[tuple[int, ...], str]]
Build = Callable[..., Any]


def save(
    folder: Path,
    build: Build | Mapping[str, Build],
    inputs: Specs,
    states: Specs | None = None,
    target: Any = ct.target.iOS18,
    name: str = "model",
) -> Path:
    """Builds `build(**inputs, **states)` and saves it, no pass run; returns the package's path.

    Args:
        build: gives one value, or a list of them; several by name make a program of several functions.
        inputs, states: name -> (shape, numpy type).
    """
    path = folder / f"{name}.mlpackage"
    weights = path / "Data" / "com.apple.CoreML" / "weights"
    weights.mkdir(parents=True)
    functions = build if isinstance(build, Mapping) else {"main": build}
    program = Program()
    program.skip_all_passes = True
    program.export_as_multifunction = len(functions) > 1
    for function_name, body in functions.items():
        program.add_function(function_name, _function(body, inputs, states or {}, target))
    exporter = MILProtoExporter(program, str(weights), int(target))
    proto = exporter.export()
    exporter.blob_writers.clear()  # the file is complete when its writer goes
    describe = CoreMLProtoExporter(program, proto, None, None, None, "mlprogram", "milinternal", int(target))
    (weights.parent / "model.mlmodel").write_bytes(describe.export(int(target)).SerializeToString())
    entry = {"path": "com.apple.CoreML/model.mlmodel"}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"0": entry}, "rootModelIdentifier": "0"}
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path


def _function(build: Build, inputs: Specs, states: Specs, target: Any) -> Function:
    places = {n: mb.placeholder(shape, dtype=TYPES[dtype]) for n, (shape, dtype) in inputs.items()}
    places |= {n: mb.state_tensor_placeholder(shape, dtype=TYPES[dtype]) for n, (shape, dtype) in states.items()}
    with Function(places, opset_version=target) as function:
        result = build(**function.inputs)
        results = list(result) if isinstance(result, list | tuple) else [result]
        # Core ML has no bool outputs.
        function.set_outputs([mb.cast(x=r, dtype="int32") if r.dtype == types.bool else r for r in results])
    return function


def normal(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Seeded float32 normal numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def outputs(
    build: Build, arrays: Mapping[str, np.ndarray], target: Any = ct.target.iOS18, precision: str = "fp32"
) -> list[np.ndarray]:
    """Builds, saves, loads and runs a program on arrays; its outputs in order, shapes and types as declared."""
    specs = {n: (a.shape, a.dtype.name) for n, a in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        program = mil.load(save(Path(folder), build, specs, target=target), kernels="numpy")
        found = program.run(arrays, precision=precision, observe=check_memory)
    for declared in program.outputs:
        value = found[declared.name]
        dtype = "float32" if precision == "fp32" and declared.dtype == "float16" else declared.dtype
        assert value.dtype == dtype, f"{declared.name}: {value.dtype} instead of {dtype}"
        assert all(d in (n, "?") for d, n in zip(declared.shape, value.shape, strict=True))
    return [found[s.name] for s in program.outputs]


def check_memory(step: Step, operands: Sequence[Any], results: Sequence[Any]) -> None:
    """Asserts that only the results of ops which say so lie in the memory of their inputs: others are written to."""
    if step.blocks or step.op in ("read_state", "write_state", "slice_update") or OPS[step.op].view:
        return
    given = [x for x in operands if isinstance(x, np.ndarray)]
    for made in results:
        if isinstance(made, np.ndarray):
            assert made.flags.writeable, f"{step.op} gives an array that cannot be written"
            assert not any(np.may_share_memory(made, x) for x in given), f"{step.op} gives a view of an input"


def inferred(build: Build, arrays: Mapping[str, np.ndarray], target: Any = ct.target.iOS18) -> list[Any]:
    """What coremltools' own value inference makes of `build` where its inputs are constants; None where it has none."""
    with Function({"unused": mb.placeholder((1,))}, opset_version=target):
        result = build(**{n: mb.const(val=a) for n, a in arrays.items()})
        return [v.val for v in (result if isinstance(result, list | tuple) else [result])]
