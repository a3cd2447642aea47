"""Small ML Programs, built with coremltools' builder and saved as packages, for tests of our interpreter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

logging.getLogger("coremltools").setLevel(logging.ERROR)
import coremltools as ct  # noqa: E402
from coremltools.converters.mil import Builder as mb  # noqa: E402
from coremltools.converters.mil.mil import types  # noqa: E402

TYPES = {"float16": types.fp16, "float32": types.fp32, "int32": types.int32, "bool": types.bool}
NO_PASSES = ct.PassPipeline.EMPTY


def save(
    folder: Path,
    build: Callable[..., Any],
    inputs: Mapping[str, tuple[tuple[int, ...], str]],
    states: Mapping[str, tuple[tuple[int, ...], str]] | None = None,
    target: Any = ct.target.iOS18,
    name: str = "model",
) -> Path:
    """Builds `build(**inputs, **states)` and saves it with no pass run; returns the package's path.

    Args:
        inputs, states: name -> (shape, numpy type).
    """
    specs = [mb.TensorSpec(shape=shape, dtype=TYPES[dtype]) for shape, dtype in inputs.values()]
    specs += [mb.StateTensorSpec(shape=shape, dtype=TYPES[dtype]) for shape, dtype in (states or {}).values()]
    names = [*inputs, *(states or {})]
    scope: dict[str, Any] = {"build": build}
    exec(f"def main({', '.join(names)}): return build({', '.join(f'{n}={n}' for n in names)})", scope)
    program = mb.program(input_specs=specs, opset_version=target)(scope["main"])
    model = ct.convert(
        program,
        convert_to="mlprogram",
        pass_pipeline=NO_PASSES,
        minimum_deployment_target=target,
        skip_model_load=True,
        compute_precision=ct.precision.FLOAT32,
    )
    path = folder / f"{name}.mlpackage"
    model.save(str(path))
    return path


def normal(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Seeded float32 normal numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
