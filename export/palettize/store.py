"""The work folder's weights: every compressed matrix as a safetensors file of its own, read back when it is needed.

This is the one artifact that all formats are written from. It implements `Weights` of export/ops/base.py.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from satchel.export.palettize.candidates import Candidate, Cost
from satchel.export.palettize.packing import pack_bits, unpack_bits
from satchel.export.palettize.spec import ScaleDtype
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor, PlainTensor
from satchel.runtime.errors import OutputError


def _encode(matrix: Matrix) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A matrix as named arrays and string metadata."""
    rows, columns = matrix.shape
    meta = {"rows": str(rows), "columns": str(columns), "bits": str(matrix.bits)}
    if isinstance(matrix, PalettizedTensor):
        index = pack_bits(matrix.index, matrix.bits)
        arrays = {"index": index, "lut": matrix.lut, "exponent": matrix.exponent, "scale": matrix.scale}
        return arrays, meta | {"kind": "palette"}
    if isinstance(matrix, AffineTensor):
        arrays = {"code": pack_bits(matrix.code, matrix.bits), "scale": matrix.scale, "zero_point": matrix.zero_point}
        if matrix.minimum is not None:
            arrays["minimum"] = matrix.minimum
        return arrays, meta | {"kind": "affine", "block": str(matrix.block), "scale_dtype": matrix.scale_dtype}
    return {"values": matrix.values}, meta | {"kind": "plain"}


def _decode(arrays: dict[str, np.ndarray], meta: dict[str, str]) -> Matrix:
    """The inverse of _encode."""
    shape, bits = (int(meta["rows"]), int(meta["columns"])), int(meta["bits"])
    if meta["kind"] == "palette":
        index = unpack_bits(arrays["index"], bits, shape[0] * shape[1]).reshape(shape)
        return PalettizedTensor(index, arrays["lut"], arrays["exponent"], arrays["scale"], bits)
    if meta["kind"] == "affine":
        code = unpack_bits(arrays["code"], bits, shape[0] * shape[1]).reshape(shape)
        dtype: ScaleDtype = "float16" if meta["scale_dtype"] == "float16" else "bfloat16"
        minimum = arrays.get("minimum")
        return AffineTensor(code, arrays["scale"], arrays["zero_point"], int(meta["block"]), dtype, bits, minimum)
    return PlainTensor(arrays["values"])


def _metadata(path: Path) -> dict[str, str] | None:
    """What _encode said of a file's matrix; None for a file that is missing or was cut off."""
    if not path.exists():
        return None
    with suppress(SafetensorError), safe_open(path, framework="numpy") as file:
        return dict(json.loads(file.metadata()["matrix"]))
    return None


class WeightStore:
    """Compressed matrices and plain vectors in a folder.

    Args:
        folder: created if it is missing; what is in it already can be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put_matrix(self, name: str, matrix: Matrix) -> None:
        """Stores a matrix under its canonical name; written aside and renamed."""
        arrays, meta = _encode(matrix)
        self._save(f"{name}.matrix", arrays, meta)

    def put_vector(self, name: str, vector: np.ndarray) -> None:
        """Stores a norm gain or a bias, fp32 [n]."""
        self._save(f"{name}.vector", {"values": np.asarray(vector, np.float32)}, {})

    def put_candidate(self, name: str, candidate: Candidate) -> None:
        """Stores one form of a matrix of several; `adopt` makes one of them a matrix."""
        arrays, meta = _encode(candidate.matrix)
        cost = candidate.cost
        self._save(
            f"{name}@{candidate.form}.matrix", arrays, meta | {"loss": repr(cost.loss), "bytes": str(cost.bytes)}
        )

    def lacking(self, name: str, forms: Iterable[str]) -> tuple[str, ...]:
        """Those forms of a matrix that are not stored, or were cut off."""
        return tuple(form for form in forms if _metadata(self._path(f"{name}@{form}.matrix")) is None)

    def costs(self, name: str, forms: Iterable[str]) -> dict[str, Cost]:
        """Form -> cost of some stored forms of a matrix."""
        found = {}
        for form in sorted(forms):
            with safe_open(self._path(f"{name}@{form}.matrix"), framework="numpy") as file:
                meta = json.loads(file.metadata()["matrix"])
            found[form] = Cost(float(meta["loss"]), int(meta["bytes"]))
        return found

    def candidate(self, name: str, form: str) -> Matrix:
        """A stored form of a matrix."""
        return self.matrix(f"{name}@{form}")

    def adopt(self, forms: WeightStore, name: str, form: str) -> None:
        """Makes a form that another store has the matrix `name` here, if there is none yet. The bytes are shared."""
        if self.has(name):
            return
        source, target = forms._path(f"{name}@{form}.matrix"), self._path(f"{name}.matrix")
        aside = target.with_suffix(".part")
        aside.unlink(missing_ok=True)
        try:
            os.link(source, aside)
        except OSError:  # a file system without links
            shutil.copyfile(source, aside)
        aside.replace(target)

    def matrix(self, name: str) -> Matrix:
        """The matrix `name`; KeyError if there is none."""
        arrays, meta = self._load(f"{name}.matrix", name)
        return _decode(arrays, meta)

    def vector(self, name: str) -> np.ndarray:
        """The vector `name`, fp32 [n]; KeyError if there is none."""
        return self._load(f"{name}.vector", name)[0]["values"]

    def has(self, name: str) -> bool:
        """Whether a matrix or vector of this name exists, and is whole."""
        return any(_metadata(self._path(f"{name}.{kind}")) is not None for kind in ("matrix", "vector"))

    def _path(self, stem: str) -> Path:
        return self.folder / f"{stem}.safetensors"

    def _save(self, stem: str, arrays: dict[str, np.ndarray], meta: dict[str, str]) -> None:
        aside = self.folder / f"{stem}.part"
        # One key, since safetensors writes several in no fixed order.
        metadata = {"matrix": json.dumps(meta, sort_keys=True)}
        try:
            save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, aside, metadata=metadata)
            aside.replace(self._path(stem))
        except (OSError, SafetensorError) as error:
            hint = "make room on the disk of the output folder, or choose another --output"
            raise OutputError("the compressed weights cannot be written", got=error, hint=hint) from error

    def _load(self, stem: str, name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        path = self._path(stem)
        if not path.exists():
            raise KeyError(name)
        with safe_open(path, framework="numpy") as file:
            return {k: file.get_tensor(k) for k in file.keys()}, json.loads(file.metadata()["matrix"])  # noqa: SIM118
