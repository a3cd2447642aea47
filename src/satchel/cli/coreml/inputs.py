"""What `satchel coreml run` feeds a model: arrays of an .npz file, picture files, or seeded random values."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from satchel.coreml import Feature, Model
from satchel.runtime.errors import MissingPackageError, UsageError

STEPS = "@steps"
"""Ending of the name of an array whose first axis is the step."""
RANDOM = "normal numbers, integers 0 or 1, pixels 0 to 255"
PILLOW_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name; UsageError where it is none. Pickled objects are refused."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        hint = 'write it with numpy: np.savez("in.npz", NAME=array, ...)'
        raise UsageError("file of inputs", got=f"{path}: {error}", wanted="an .npz file", hint=hint) from error


def read_images(given: list[str], features: Mapping[str, Feature]) -> dict[str, Any]:
    """`name=file` each -> pictures in the color space of that input; never resized."""
    images = {}
    for text in given:
        name, _, file = text.partition("=")
        if not file or name not in features or features[name].kind != "image":
            wanted = [f"{n}=FILE" for n, f in features.items() if f.kind == "image"]
            raise UsageError("--image", got=text, wanted=wanted or "nothing: the model has no image inputs")
        images[name] = _read_image(Path(file), features[name])
    return images


def _read_image(path: Path, feature: Feature) -> Any:
    try:
        from PIL import Image  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingPackageError("Pillow reads picture files", hint="pip install pillow") from error
    try:
        with Image.open(path) as image:
            return image.convert(PILLOW_MODES[feature.color])
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"picture of input {feature.name}", got=f"{path}: {error}", wanted="a picture file") from error


def random_values(model: Model, function: str | None, seed: int) -> dict[str, np.ndarray]:
    """Random values of the default shapes, 1 where a dimension is unknown (see RANDOM), for every input."""
    rng = np.random.default_rng(seed)
    values = {}
    for feature in model.signature(function).inputs.values():
        shape = [1 if isinstance(d, str) else d for d in feature.shape]
        model.program.limit.check(f"input {feature.name}", prod(shape))
        values[feature.name] = _random(feature, shape, rng)
    return values


def _random(feature: Feature, shape: list[int], rng: np.random.Generator) -> np.ndarray:
    if feature.dtype == "uint8" and feature.kind == "image":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    if feature.dtype.startswith(("int", "uint", "bool")):
        return rng.integers(0, 2, shape, dtype=np.int32)
    return rng.standard_normal(shape).astype(np.float32)


def at_step(values: Mapping[str, Any], step: int, steps: int) -> dict[str, Any]:
    """The inputs of one step: of an array NAME@steps its slice, under NAME; everything else as it is."""
    found = {}
    for name, value in values.items():
        if name.endswith(STEPS):
            if len(np.shape(value)) == 0 or len(value) != steps:
                wanted = f"a first axis of {steps}, the number of --steps"
                raise UsageError(f"shape of array {name}", got=list(np.shape(value)), wanted=wanted)
            found[name.removesuffix(STEPS)] = value[step]
        else:
            found[name] = value
    return found


def table(title: str, features: Mapping[str, Feature]) -> Table:
    """Features as a table: what may be given for each, or comes out."""
    optional = any(f.optional for f in features.values())
    columns = ("name", "kind", "shape", "dtype", *(["if left out"] if optional else []), "about")
    found = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for feature in features.values():
        default = [f"{feature.default:g}" if feature.optional else ""] if optional else []
        kind = f"{feature.kind} {feature.color}".strip()
        found.add_row(feature.name, kind, feature.allowed(), feature.dtype, *default, feature.about)
    return found


def to_json(features: Mapping[str, Feature]) -> list[dict[str, Any]]:
    """Features as JSON objects."""
    return [
        {"name": f.name, "kind": f.kind, "shape": list(f.shape), "allowed": f.allowed(), "dtype": f.dtype}
        | ({"color": f.color} if f.color else {})
        | ({"default": f.default} if f.optional else {})
        for f in features.values()
    ]
