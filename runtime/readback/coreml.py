"""Reads the weights back out of a Core ML package, as the file itself says them.

Names in the program are canonical, "__" for "." (see export/formats/coreml.py): the output of a constexpr op or of
a const is the matrix, `<name>__scale` holds the row scales of a palette, `<name>__partN` consecutive rows of a split
head or of its bias. Parts of a tied head repeat rows of embed_tokens and are not reported. The package of a traced
module lists its weights in its metadata.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.compile import references
from satchel.runtime.mil.constants import Constant, from_constexpr, from_value
from satchel.runtime.mil.package import Package, open_package
from satchel.runtime.mil.values import constant_shape
from satchel.runtime.module.layout import to_matrix
from satchel.runtime.module.names import WEIGHTS_KEY
from satchel.runtime.strict_json import parse
from satchel.runtime.weights import WeightRecord, digest

SEEING = r"vision__(?:patch_embedding|layers__\d+__.*?|projector__\d+)"
MATRIX = re.compile(
    rf"(?P<name>embed_tokens|lm_head|layers__\d+__.*?|{SEEING})(?:__part(?P<part>\d+)|__(?P<head>head))?"
)
NOT_A_MATRIX = re.compile(r"norm|__(scale|bias)(__|$)")


@dataclass(frozen=True)
class _Source:
    """One matrix, or one part of a split one, in the program.

    Attributes:
        op: the op that makes it.
        part: its number in a split head, 1 where it is whole.
        scale: the const of its row scales, or None.
    """

    op: Any
    part: int
    scale: Any | None


def read_weights(path: Path, function: str | None = None) -> Iterator[WeightRecord]:
    """Every weight matrix; arguments, order and errors as read_matrices has them."""
    return (record for record, _ in read_matrices(path, function))


def read_matrices(path: Path, function: str | None = None) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    """Yields every weight matrix of a function and its values, float32 [rows, columns], in the order of the program.

    Args:
        path: of the .mlpackage.
        function: the default one if None. Of a model of several packages, each call of the chain has its own.

    Raises FormatError where the package cannot be read. One matrix is in memory at a time.
    """
    package = open_package(path)
    operations = package.block(function or package.default_function).operations
    made = {op.outputs[0].name: op for op in operations if op.type == "const" or op.type.startswith("constexpr_")}
    seen: set[tuple[str, int]] = set()
    table = package.model.description.metadata.userDefined.get(WEIGHTS_KEY, "")
    if table:
        yield from _listed(package, made, parse(table.encode(), WEIGHTS_KEY), seen)
        return
    for name, sources in _matrices(made).items():
        values = np.concatenate([_values(package, made, s) for s in sources])
        used = sum(_bytes(package, value, seen) for s in sources for value in _stored(made, s))
        bits, shape = _bits(made, sources[0].op), (values.shape[0], values.shape[1])
        yield WeightRecord(name.replace("__", "."), shape, bits, used, digest(values)), values


def _listed(
    package: Package, made: dict[str, Any], table: Any, seen: set[tuple[str, int]]
) -> Iterator[tuple[WeightRecord, np.ndarray]]:
    """The weights of a traced module, which the package lists, see export/module/formats/coreml.py."""
    try:
        for name, entry in table.items():
            op, scale = made[entry["var"]], made[entry["scale"]] if entry["scale"] else None
            values = np.asarray(_constant(package, made, op).load(), np.float32)
            values = to_matrix(values, entry["form"], entry["groups"])
            if scale is not None:
                values = values * np.asarray(_constant(package, made, scale).load(), np.float32).reshape(-1, 1)
            stored = _stored(made, _Source(op, 1, scale))
            used = sum(_bytes(package, value, seen) for value in stored)
            shape = (values.shape[0], values.shape[1])
            yield WeightRecord(name, shape, _bits(made, op), used, digest(values)), values
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FormatError("Core ML: the list of weights does not fit the package", got=error) from error


class PackageWeights:
    """The weights of a package of ours by canonical name, read when they are asked for.

    Args:
        package: opened.
        function: whose weights; functions share them as a rule.
    """

    def __init__(self, package: Package, function: str) -> None:
        operations = package.block(function).operations
        self._package = package
        self._made = {o.outputs[0].name: o for o in operations if o.type == "const" or o.type.startswith("constexpr_")}
        self._matrices = _matrices(self._made)

    def has(self, name: str) -> bool:
        """Whether there is a matrix or vector of this name."""
        key = name.replace(".", "__")
        return key in self._matrices or bool(self._vector_parts(key))

    def matrix(self, name: str) -> np.ndarray:
        """float32 [rows, columns], row scales included; KeyError if there is none."""
        parts = self._matrices[name.replace(".", "__")]
        return np.concatenate([_values(self._package, self._made, part) for part in parts])

    def vector(self, name: str) -> np.ndarray:
        """A norm gain or a bias, float32 [n]; KeyError if there is none."""
        parts = self._vector_parts(name.replace(".", "__"))
        if not parts:
            raise KeyError(name)
        loaded = [_constant(self._package, self._made, op).load() for op in parts]
        return np.concatenate([np.asarray(values, np.float32).reshape(-1) for values in loaded])

    def _vector_parts(self, key: str) -> list[Any]:
        """What makes a vector: one const, or those of a split head's bias, in order."""
        if key in self._made:
            return [self._made[key]]
        return list(itertools.takewhile(bool, (self._made.get(f"{key}__part{i}") for i in itertools.count())))


def _matrices(made: dict[str, Any]) -> dict[str, list[_Source]]:
    """Name in the program -> where it, or each of its parts in order, is made."""
    found: dict[str, list[_Source]] = {}
    for output, op in made.items():
        match = MATRIX.fullmatch(output)
        if not match or NOT_A_MATRIX.search(output) or len(_matrix_shape(op)) != 2:
            continue
        if match["name"] == "embed_tokens" and (match["part"] or match["head"]):
            continue  # the rows of a tied head once more
        source = _Source(op, int(match["part"] or 1), made.get(f"{output}__scale"))
        found.setdefault(match["name"], []).append(source)
    return {name: sorted(sources, key=lambda s: s.part) for name, sources in found.items()}


def _matrix_shape(op: Any) -> tuple[int, ...]:
    """[rows, columns] of a matrix, also where it is the kernel of a 1x1 convolution."""
    """(rows, columns); a kernel of more than one place is a row's columns, one channel after the other."""
    _, shape = constant_shape(op.outputs[0])
    return (shape[0], math.prod(shape[1:])) if len(shape) == 4 else shape


def _values(package: Package, made: dict[str, Any], source: _Source) -> np.ndarray:
    """float32 [rows, columns], row scales included."""
    values = np.asarray(_constant(package, made, source.op).load(), np.float32).reshape(_matrix_shape(source.op))
    if source.scale is None:
        return values
    scale = np.asarray(from_value(package, source.scale.attributes["val"]).load(), np.float32)
    return values * scale.reshape(-1, 1)


def _constant(package: Package, made: dict[str, Any], op: Any) -> Constant:
    """The value that a const or a constexpr op makes."""
    if op.type == "const":
        return from_value(package, op.attributes["val"])
    arguments = {
        name: _constant(package, made, made[refs[0]]) if isinstance(refs[0], str) else from_value(package, refs[0])
        for name, refs in references(op).items()
    }
    return from_constexpr(op.type, op.outputs[0], arguments, rounds=False)


def _stored(made: dict[str, Any], source: _Source) -> Iterator[Any]:
    """The protos of all constants that a matrix is stored in."""
    yield from _leaves(made, source.op)
    if source.scale is not None:
        yield source.scale.attributes["val"]


def _leaves(made: dict[str, Any], op: Any) -> Iterator[Any]:
    if op.type == "const":
        yield op.attributes["val"]
        return
    for refs in references(op).values():
        if isinstance(refs[0], str):
            yield from _leaves(made, made[refs[0]])
        else:
            yield refs[0]


def _bytes(package: Package, value: Any, seen: set[tuple[str, int]]) -> int:
    """Bytes that a constant takes in the package; a blob that was counted before takes none."""
    if value.WhichOneof("value") != "blobFileValue":
        dtype, shape = constant_shape(value)
        return dtype.nbytes(int(np.prod(shape)))
    blob = value.blobFileValue
    data = package.blob_file(blob.fileName).raw(blob.offset)[1]
    key = (blob.fileName, int(data.__array_interface__["data"][0]))
    if key in seen:
        return 0
    seen.add(key)
    return int(data.size)


def _bits(made: dict[str, Any], op: Any) -> int:
    """Bits of one code as stored."""
    if op.type == "const":
        return constant_shape(op.outputs[0])[0].bits
    arguments = references(op)
    codes = next(arguments[n][0] for n in ("indices", "data", "quantized_data", "source_val") if n in arguments)
    if isinstance(codes, str):
        return _bits(made, made[codes])
    if "shape" in arguments:  # before iOS 18 indices are packed into bytes; the LUT says how many bits they have
        entries = constant_shape(arguments["lut"][0])[1][0]
        return int(entries).bit_length() - 1
    return constant_shape(codes)[0].bits
