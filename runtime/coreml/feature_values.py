"""Values of features: what a caller may give for an input, and what an output is given back as."""

from __future__ import annotations

from typing import Any

import numpy as np

from satchel.runtime.coreml.features import Feature
from satchel.runtime.coreml.images import from_tensor, to_tensor
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.dtypes import BY_NAME, compute_type

SCALARS = {"int64": int, "double": float, "string": str}


def as_input(feature: Feature, value: Any, tensor: TensorSpec) -> np.ndarray:
    """A caller's value -> the tensor of the program.

    Args:
        feature: as described.
        value: an array or anything that numpy makes one of (a tensor of torch too); a picture for an image.
        tensor: the program's own type of it; its shape may be () where [1] is described.

    Raises UsageError that names the feature and what it may be.
    """
    if feature.kind == "image":
        return to_tensor(feature, value, len(tensor.shape))
    if feature.kind in ("dictionary", "sequence"):
        raise UsageError(f"input {feature.name}", got=f"a {feature.kind}", wanted="an input that is an array or image")
    array = as_array(feature.name, value)
    if array.ndim == 0 and feature.allows((1,)):
        array = array.reshape(1)
    if not feature.allows(array.shape):
        raise UsageError(f"shape of input {feature.name}", got=list(array.shape), wanted=feature.allowed())
    described = feature.dtype if feature.kind != "string" else tensor.dtype
    array = _typed(feature.name, array, (described, tensor.dtype))
    return array.reshape(()) if array.size == 1 and not tensor.shape else array


def filled(feature: Feature, tensor: TensorSpec) -> np.ndarray:
    """The tensor of an optional input that was left out: its default value everywhere, 0 where none is described."""
    if any(isinstance(d, str) for d in feature.shape):
        raise UsageError(f"input {feature.name}", got="nothing", wanted=f"an array of shape {feature.allowed()}")
    sizes = tuple(int(d) for d in feature.shape)
    if feature.kind == "image":
        return to_tensor(feature, np.zeros(sizes, np.uint8), len(tensor.shape))
    return np.full(sizes if tensor.shape else (), feature.default, compute_type(BY_NAME[tensor.dtype]))


def as_output(feature: Feature, value: Any) -> Any:
    """A result of the program -> what the description calls it.

    Returns:
        an array of the described type; for an image one of Pillow where that is installed, else an array; a Python
        number or str; a dict of probabilities.
    """
    if feature.kind == "image":
        return from_tensor(feature, np.asarray(value))
    if feature.kind == "dictionary":
        if not isinstance(value, dict):
            raise FormatError(f"output {feature.name}", got=type(value).__name__, wanted="a dictionary")
        return {_plain(k): float(v) for k, v in value.items()}
    if feature.kind in SCALARS:
        return _scalar(feature, value)
    if feature.kind == "sequence":
        return [_plain(v) for v in np.asarray(value, dtype=object).reshape(-1)]
    if feature.dtype == "str":
        return np.asarray(value, dtype=object)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(value).astype(BY_NAME[feature.dtype].storage, copy=False)


def _scalar(feature: Feature, value: Any) -> Any:
    """A number or string; FormatError where the program gives something else under that name."""
    try:
        return SCALARS[feature.kind](_plain(value))
    except (TypeError, ValueError) as error:
        raise FormatError(f"output {feature.name}", got=error, wanted=feature.kind) from error


def as_array(name: str, value: Any) -> np.ndarray:
    """Numbers, strings or a tensor of another package -> an array; UsageError for anything else."""
    if hasattr(value, "detach"):  # a tensor of torch, which may need a gradient
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"input {name}", got=str(error), wanted="an array of numbers") from error
    if array.dtype.kind not in "fiubUO":
        raise UsageError(f"type of input {name}", got=array.dtype.name, wanted="real numbers")
    return array


def _typed(name: str, array: np.ndarray, dtypes: tuple[str, str]) -> np.ndarray:
    """`array`, fit for the described and the program's type: whole and in range where they are integers."""
    if "str" in dtypes:
        return array.astype(object)
    if array.dtype.kind in "UO":
        raise UsageError(f"type of input {name}", got=f"{array.dtype.name} values", wanted=dtypes[0])
    for dtype in dtypes:
        if dtype == "bool":
            array = array != 0
        elif not BY_NAME[dtype].is_float:
            array = _whole(name, array, dtype)
    return array


def _whole(name: str, array: np.ndarray, dtype: str) -> np.ndarray:
    kind = np.dtype(BY_NAME[dtype].storage)
    if array.dtype == kind or array.dtype.kind == "b" or not array.size:
        return array.astype(kind, copy=False)
    limits = np.iinfo(kind)
    low, high = array.min(), array.max()
    if not (limits.min <= low and high <= limits.max):  # also where a NaN is
        raise UsageError(f"values of input {name}", got=f"{low} to {high}", wanted=dtype)
    if array.dtype.kind == "f" and (array != np.rint(array)).any():
        raise UsageError(f"values of input {name}", got=f"fractions of {array.dtype.name}", wanted=dtype)
    return array.astype(kind)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray | np.generic) else value
