"""Weights read back out of what each program wrote, so that all are judged in one and the same model in fp32."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satchel.export.palettize.store import WeightStore
from satchel.export.reference import Reference
from satchel.runtime.bundle import open_bundle
from satchel.runtime.readback import coreml, executorch, onnx
from satchel.runtime.weights import WeightRecord

READERS: dict[str, Callable[..., Iterator[tuple[WeightRecord, np.ndarray]]]] = {
    "coreml": coreml.read_matrices,
    "onnx": onnx.read_matrices,
    "executorch": executorch.read_matrices,
}
BYTES = "bytes"
"""Key of a safetensors file's metadata: canonical name -> bytes that a compressed matrix takes, as JSON."""


@dataclass(frozen=True)
class Size:
    """What the matrices of a model take, scales, zero points and LUTs counted.

    Attributes:
        bytes: of all matrices.
        bits: a weight, of all matrices.
        linear_bits: a weight, of the layers' linears alone.
    """

    bytes: int
    bits: float
    linear_bits: float

    @classmethod
    def of(cls, sizes: dict[str, int], shapes: dict[str, tuple[int, int]]) -> Size:
        """From bytes and shapes of each matrix."""
        linears = [n for n in shapes if n.startswith("layers.")]
        counts = {n: rows * columns for n, (rows, columns) in shapes.items()}
        total = sum(sizes[n] for n in shapes)
        linear = 8 * sum(sizes[n] for n in linears) / sum(counts[n] for n in linears)
        return cls(total, round(8 * total / sum(counts.values()), 3), round(linear, 3))


@dataclass(frozen=True)
class Dense:
    """A matrix whose values are known."""

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns)."""
        return self.values.shape

    def dequantize(self, rows: slice = slice(None)) -> np.ndarray:
        """float32, of all rows or some."""
        return self.values[rows]


class Found:
    """Matrices of one artifact, as Reference.load_weights reads them."""

    def __init__(self, matrices: Iterator[tuple[str, np.ndarray, int]]) -> None:
        self._matrices, self.sizes = {}, {}
        for name, values, size in matrices:
            self._matrices[name], self.sizes[name] = Dense(values), size

    def matrix(self, name: str) -> Any:
        """The matrix of a canonical name."""
        return self._matrices[name]


def load(reference: Reference, path: Path) -> Size:
    """Puts the weights of a bundle, a store, a safetensors file or a model of genai's builder into the reference.

    Args:
        reference: whose matrices are replaced; norms and biases stay.
        path: a folder *.satchel, of a WeightStore, or of onnxruntime-genai; or a file whose metadata have BYTES.
    """
    shapes = {name: (shape[0], shape[1]) for name, shape in reference.config.matrix_shapes().items()}
    found = Found(_matrices(path, shapes))
    reference.load_weights(found)  # type: ignore[arg-type]  # matrices alone
    return Size.of(found.sizes, shapes)


def _matrices(path: Path, shapes: dict[str, tuple[int, int]]) -> Iterator[tuple[str, np.ndarray, int]]:
    if path.suffix == ".safetensors":
        yield from _safetensors(path)
    elif (path / "manifest.json").exists():
        bundle = open_bundle(path, verify=False)
        entry = bundle.manifest.entry
        calls = [(chunk.path, [chunk.functions["decode"]]) for chunk in entry.chunks or ()]
        for package, function in calls or [(entry.path, [])]:
            for record, values in READERS[entry.format](bundle.folder / package, *function):
                yield record.name, values, record.bytes
    elif (path / "genai_config.json").exists():
        yield from _genai(path, shapes)
    else:
        store = WeightStore(path)
        for name in shapes:
            matrix = store.matrix(name)
            yield name, matrix.dequantize(), matrix.stored_bytes


def _safetensors(path: Path) -> Iterator[tuple[str, np.ndarray, int]]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        sizes = json.loads(file.metadata()[BYTES])
        for name, size in sizes.items():
            yield name, file.get_tensor(name).astype(np.float32), size


def gguf_size(path: Path) -> Size:
    """Of the matrices of a GGUF file. transformers itself reads their values."""
    from gguf import GGUFReader

    tensors = [t for t in GGUFReader(path).tensors if len(t.shape) == 2]
    shapes = {_gguf_name(t.name): (int(t.shape[1]), int(t.shape[0])) for t in tensors}
    return Size.of({_gguf_name(t.name): int(t.n_bytes) for t in tensors}, shapes)


def _gguf_name(name: str) -> str:
    return name.replace("blk.", "layers.")


GENAI_BLOCK = 32


def _genai(folder: Path, shapes: dict[str, tuple[int, int]]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Matrices of a model by onnxruntime-genai's builder: 4 bits in blocks of 32 around 8, two codes a byte."""
    import onnx

    model = onnx.load(str(folder / "model.onnx"))
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    if "model.embed_tokens.weight" in stored:  # an untied embedding stays as it is
        table = stored["model.embed_tokens.weight"]
        yield "embed_tokens", table.astype(np.float32), table.nbytes
    for name, codes in stored.items():
        if not name.endswith(".weight_Q4"):
            continue
        scales = stored[name.replace("_Q4", "_scales")].reshape(codes.shape[0], -1, 1)
        packed = codes.reshape(codes.shape[0], -1, GENAI_BLOCK // 2)
        nibbles = np.stack((packed & 15, packed >> 4), -1).reshape(*packed.shape[:2], GENAI_BLOCK).astype(np.float32)
        values = ((nibbles - 8) * scales).reshape(codes.shape[0], -1)
        yield from _split(_canonical(name), values, codes.nbytes + scales.nbytes, shapes)


def _canonical(name: str) -> str:
    plain = name.removeprefix("model.").removesuffix(".MatMul.weight_Q4")
    return plain.replace(".attn.", ".self_attn.").replace(".fc1", ".up_proj").replace(".fc2", ".down_proj")


def _split(
    name: str, values: np.ndarray, size: int, shapes: dict[str, tuple[int, int]]
) -> Iterator[tuple[str, np.ndarray, int]]:
    """A matrix under its canonical name, or its parts; a tied head is the embedding."""
    before, _, last = name.rpartition(".")
    names = [f"{before}.{part}" for part in ("q_proj", "k_proj", "v_proj")] if last == "qkv_proj" else [name]
    if names == ["lm_head"] and "lm_head" not in shapes:
        names = ["embed_tokens"]
    start = 0
    for part in names:
        rows = shapes[part][0]
        yield part, values[start : start + rows], size * rows // len(values)
        start += rows
