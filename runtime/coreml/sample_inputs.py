"""Inputs to try a function with, drawn at random and the same for the same seed.

Floats are standard normal, images whole numbers from 0 to 255. Integers that pick rows of a table, such as token ids,
lie within it. An integer alone (shape [] or [1]) is 0, since it is a position or a counter as a rule. Any other integer
is 1, as in a mask that hides nothing; a truth is true. Optional inputs have their defaults. Every number is one that
fp16 holds, so that programs of either type are given the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from satchel.runtime.coreml.feature_values import as_input, filled
from satchel.runtime.coreml.features import Feature, read_signature
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.dtypes import BY_NAME, compute_type
from satchel.runtime.mil.package import Package
from satchel.runtime.mil.values import tensor_type

# Ops that hand indices on; add and select are how negative ones are made positive.
PASSING = ("cast", "reshape", "expand_dims", "squeeze", "identity", "transpose", "select", "add", "slice_by_index")
MOST_ELEMENTS = 2**26
UNLIMITED = 2**30


def sample_inputs(package: Package, function: str | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Every input of a function as the program's tensors; UsageError for an input that cannot be made up."""
    name = function or package.default_function
    signature = read_signature(package, name)
    bounds, random = index_bounds(package, name), np.random.default_rng(seed)
    return {
        n: filled(f, signature.tensors[n]) if f.optional else _drawn(f, signature.tensors[n], bounds.get(n), random)
        for n, f in signature.inputs.items()
    }


def given_inputs(package: Package, function: str | None, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A caller's inputs as the program's tensors; UsageError where one is missing, unknown, or does not fit."""
    signature = read_signature(package, function or package.default_function)
    needed = {n for n, f in signature.inputs.items() if not f.optional}
    if not needed <= set(values) <= set(signature.inputs):
        raise UsageError("inputs of the model", got=sorted(values), wanted=sorted(signature.inputs))
    return {
        n: as_input(f, values[n], signature.tensors[n]) if n in values else filled(f, signature.tensors[n])
        for n, f in signature.inputs.items()
    }


def _drawn(feature: Feature, spec: TensorSpec, bound: int | None, random: np.random.Generator) -> np.ndarray:
    hint = "give the inputs in a file, --inputs FILE.npz"
    shape = _shape(feature, spec)
    if spec.dtype not in BY_NAME or spec.dtype == "str" or prod(shape) > MOST_ELEMENTS:
        raise UsageError(f"input {feature.name} cannot be made up", got=f"{spec.dtype} {list(shape)}", hint=hint)
    dtype = BY_NAME[spec.dtype]
    if feature.kind == "image":
        return random.integers(0, 256, shape).astype(compute_type(dtype))
    if dtype.is_float:
        return random.standard_normal(shape).astype(np.float16).astype(compute_type(dtype))
    if dtype.name == "bool" or prod(shape) != 1 or len(shape) > 1:
        values = random.integers(0, bound, shape) if bound else np.ones(shape)
        return values.astype(compute_type(dtype))
    return np.zeros(shape, compute_type(dtype))


def _shape(feature: Feature, spec: TensorSpec) -> tuple[int, ...]:
    """The program's own, dimensions that it leaves open as the description says, else 1."""
    usual = feature.shape if len(feature.shape) == len(spec.shape) else (1,) * len(spec.shape)
    sizes = (s if isinstance(s, int) else u for s, u in zip(spec.shape, usual, strict=True))
    return tuple(s if isinstance(s, int) else 1 for s in sizes)


def index_bounds(package: Package, function: str) -> dict[str, int]:
    """Inputs that index something -> how many entries it has, the fewest of them."""
    came_from = {value.name: value.name for value in package.function(function).inputs}
    shapes: dict[str, tuple[int | None, ...]] = {}
    constants: dict[str, Any] = {}
    bounds: dict[str, int] = {}
    for op in _operations(package.block(function)):
        refs = {n: [b.name for b in a.arguments if b.WhichOneof("binding") == "name"] for n, a in op.inputs.items()}
        if op.type == "const":
            constants.update((o.name, op.attributes["val"]) for o in op.outputs)
        shapes.update(_shapes(op))
        origins = [came_from[r] for names in refs.values() for r in names if r in came_from]
        if op.type in PASSING and origins:
            came_from.update((o.name, origins[0]) for o in op.outputs)
        if op.type == "gather" and (source := next((came_from[r] for r in refs["indices"] if r in came_from), None)):
            size = _axis_size(refs, shapes, constants)
            bounds[source] = min(size, bounds.get(source, size))
    return bounds


def _axis_size(
    refs: Mapping[str, list[str]], shapes: Mapping[str, tuple[int | None, ...]], constants: Mapping[str, Any]
) -> int:
    shape = shapes.get(next(iter(refs.get("x", ())), ""), ())
    axis = constants.get(next(iter(refs.get("axis", ())), ""))
    place = int(axis.immediateValue.tensor.ints.values[0]) if axis and axis.immediateValue.tensor.ints.values else 0
    size = shape[place] if -len(shape) <= place < len(shape) else None
    return UNLIMITED if size is None else max(size, 1)


def _operations(block: Any) -> Iterator[Any]:
    for op in block.operations:
        for inner in op.blocks:
            yield from _operations(inner)
        yield op


def _shapes(op: Any) -> Iterator[tuple[str, tuple[int | None, ...]]]:
    for output in op.outputs:
        try:
            yield output.name, tensor_type(output.type)[1]
        except FormatError:
            continue
