"""Golden data of a module: inputs, and what the original says to them. See FORMAT.md, "Modules".

`golden.json` holds the structure, and a raw little-endian file each array.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from satchel.runtime import strict_json
from satchel.runtime.errors import BundleError
from satchel.runtime.manifest import TensorSpec, check_path
from satchel.runtime.module.manifest import ModuleEntry

SCHEMA_VERSION = 1
SETS = ("reference", "weights")
DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "int64": "<i8", "uint8": "u1", "int8": "i1", "bool": "?"}

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One call of a part.

    Attributes:
        part: which of the module's files.
        inputs: by name.
        sets: "reference", the original in fp32, and "weights", the same program with the bundle's weights in fp32 ->
            outputs by name.
    """

    part: str
    inputs: Arrays
    sets: Mapping[str, Arrays]


@dataclass(frozen=True)
class _Array:
    file: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Case:
    part: str
    inputs: dict[str, _Array]
    sets: dict[str, dict[str, _Array]]


@dataclass(frozen=True)
class _Structure:
    schema_version: int
    cases: tuple[_Case, ...]


@dataclass(frozen=True)
class ModuleGolden:
    """Everything in `golden/`."""

    cases: tuple[Case, ...]

    def write(self, folder: Path) -> None:
        """Writes golden.json and the arrays into `folder`, which is made if need be; equal arrays are one file."""
        folder.mkdir(exist_ok=True)
        cases = []
        held: dict[str, str] = {}
        for number, case in enumerate(self.cases):
            inputs = _write_all(folder, f"{number}.input", case.inputs, held)
            sets = {name: _write_all(folder, f"{number}.{name}", case.sets[name], held) for name in sorted(case.sets)}
            cases.append(_Case(case.part, inputs, sets))
        structure = strict_json.encode(_Structure(SCHEMA_VERSION, tuple(cases)))
        (folder / "golden.json").write_bytes(strict_json.canonical(structure))

    @classmethod
    def read(cls, folder: Path) -> ModuleGolden:
        """Reads what `write` wrote.

        Raises:
            BundleError: a file is missing, or of the wrong size.
        """
        path = folder / "golden.json"
        if not path.is_file():
            raise BundleError("the bundle has no golden data", wanted="golden/golden.json", hint="export it again")
        value = strict_json.parse(path.read_bytes(), "golden.json")
        structure = strict_json.decode(_Structure, value, "golden.json")
        if structure.schema_version != SCHEMA_VERSION or not structure.cases:
            raise BundleError("golden.json is of an unknown schema, or empty", got=structure.schema_version)
        return cls(tuple(_read_case(folder, case) for case in structure.cases))

    def check(self, module: ModuleEntry) -> None:
        """Raises BundleError where the cases do not fit the module."""
        for case in self.cases:
            if case.part not in module.files or "reference" not in case.sets or set(case.sets) - set(SETS):
                raise BundleError("golden data of another module", got=(case.part, sorted(case.sets)), wanted=SETS)
            part = module.files[case.part]
            _same_names(case.inputs, part.inputs)
            for outputs in case.sets.values():
                _same_names(outputs, part.outputs)


def _same_names(arrays: Arrays, specs: tuple[TensorSpec, ...]) -> None:
    if set(arrays) != (wanted := {spec.name for spec in specs}):
        raise BundleError("golden data of other names", got=sorted(arrays), wanted=sorted(wanted))


def _write_all(folder: Path, stem: str, arrays: Arrays, held: dict[str, str]) -> dict[str, _Array]:
    return {name: _write(folder, f"{stem}.{i}.bin", arrays[name], held) for i, name in enumerate(sorted(arrays))}


def _write(folder: Path, file: str, values: np.ndarray, held: dict[str, str]) -> _Array:
    """Writes an array, unless `held` (sha256 -> file) has one of the same bytes: a decoder is given what an encoder
    gives."""
    name = values.dtype.name
    data = np.ascontiguousarray(values, DTYPES[name]).tobytes()
    found = held.setdefault(hashlib.sha256(data).hexdigest(), file)
    if found == file:
        (folder / file).write_bytes(data)
    return _Array(found, values.shape, name)


def _read_case(folder: Path, case: _Case) -> Case:
    inputs = {name: _read(folder, array) for name, array in case.inputs.items()}
    sets = {key: {name: _read(folder, array) for name, array in one.items()} for key, one in case.sets.items()}
    return Case(case.part, inputs, sets)


def _read(folder: Path, entry: _Array) -> np.ndarray:
    if entry.dtype not in DTYPES or "/" in check_path(entry.file) or min(entry.shape, default=1) < 0:
        raise BundleError("golden.json names an impossible array", got=entry, wanted=sorted(DTYPES))
    dtype = np.dtype(DTYPES[entry.dtype])
    path, wanted = folder / entry.file, dtype.itemsize * int(np.prod(entry.shape, dtype=object))
    size = path.stat().st_size if path.is_file() else None
    if size != wanted:
        raise BundleError(f"golden/{entry.file} is missing or of the wrong size", got=size, wanted=wanted)
    return np.fromfile(path, dtype).astype(entry.dtype).reshape(entry.shape)
