"""A GGUF file's own codes as matrices: nothing is quantized again, so that a bundle says what the file says.

    Q4_0    d (q - 8)     int4-block32        d and m are fp16, q has 4 bits
    Q4_1    d q + m       int4-block32-min
    Q8_0    d q           int8-block32        q is int8
    F16, BF16, F32        fp16 where that is exact, else fp32

The layouts of the blocks are those of ggml (ggml-quants.h, as gguf-py has them): 32 weights each, d and m first; of
4-bit codes the first sixteen are the low nibbles. Blocks run along rows, so that a change in the order of rows leaves
them whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from satchel.devices.plan import Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.families.tensors import CanonicalTensors
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import AffineTensor, Matrix, PlainTensor
from satchel.export.progress import Progress, silent
from satchel.runtime.errors import CheckpointError, UsageError

BLOCK = 32
FLOATS = ("F16", "BF16", "F32")
CODES = ("Q4_0", "Q4_1", "Q8_0")
HINT = "take --weights palette, int4 or int8, which quantize anew"

Restore = Callable[[np.ndarray], np.ndarray]
"""Undoes a conversion's order of rows."""


def keep_codes(
    tensors: CanonicalTensors, config: DecoderConfig, store: WeightStore, progress: Progress = silent
) -> None:
    """Fills `store` with the file's own codes and vectors, one matrix in memory at a time."""
    for name in config.vector_shapes():
        store.put_vector(name, tensors.read(name))
    names = list(config.matrix_shapes())
    for count, name in enumerate(names, 1):
        store.put_matrix(name, source_matrix(tensors, name))
        progress("Keeping the file's codes", count, len(names))


def source_matrix(tensors: CanonicalTensors, name: str) -> Matrix:
    """One matrix as the file has it.

    Raises:
        CheckpointError: a scale or a minimum is NaN or infinite.
    """
    kind = tensors.stored_type(name)
    if kind in FLOATS:
        return _plain(tensors.read(name))
    raw, restore = tensors.stored_blocks(name)
    return _READERS[kind](name, raw, restore)


def check_source(tensors: CanonicalTensors, config: DecoderConfig, plans: Sequence[Plan]) -> None:
    """Finds out before anything is computed whether every plan that keeps the file's codes can hold them.

    Raises:
        UsageError: the checkpoint has no codes, or codes that a format has no kernel for; it says which.
    """
    asked = [plan for plan in plans if plan["weights"] == "source"]
    if not asked:
        return
    kinds = {name: tensors.stored_type(name) for name in config.matrix_shapes()}
    if not any(kind in CODES for kind in kinds.values()):
        got = f"{tensors.kind} with {_counted(kinds)}"
        raise UsageError(
            "the checkpoint has no codes that could be kept", got=got, wanted=f"a GGUF file of {', '.join(CODES)}",
            hint=f"{HINT}, or fp16",
        )  # fmt: skip
    unknown = {name: kind for name, kind in kinds.items() if kind not in (*CODES, *FLOATS)}
    _refuse("no format keeps these codes as they are", unknown, ", ".join((*CODES, *FLOATS)), HINT)
    if any(plan.format == "executorch" and plan["target"] == "xnnpack" for plan in asked):
        _check_xnnpack(tensors, kinds)


def _check_xnnpack(tensors: CanonicalTensors, kinds: dict[str, str]) -> None:
    wanted = "Q4_0 for linears, with scales above 0 that bfloat16 holds; F16, BF16 or F32 for the embedding"
    hint = f"take --format onnx; or {HINT}"
    unknown = {n: k for n, k in kinds.items() if k not in FLOATS and (k != "Q4_0" or n == "embed_tokens")}
    _refuse("XNNPACK has no kernel for these codes", unknown, wanted, hint)
    for name in (n for n, kind in kinds.items() if kind == "Q4_0"):
        matrix = source_matrix(tensors, name)
        assert isinstance(matrix, AffineTensor)
        if (matrix.scale.view(np.uint32) & 0xFFFF).any() or not (matrix.scale > 0).all():
            _refuse("XNNPACK has no kernel for these scales of fp16", {name: "Q4_0"}, wanted, hint)


def _refuse(what: str, kinds: dict[str, str], wanted: str, hint: str) -> None:
    if kinds:
        raise UsageError(what, got=f"{_counted(kinds)}, such as {next(iter(kinds))}", wanted=wanted, hint=hint)


def _counted(kinds: dict[str, str]) -> str:
    return ", ".join(f"{count} x {kind}" for kind, count in sorted(Counter(kinds.values()).items()))


def _plain(values: np.ndarray) -> PlainTensor:
    """fp16 where that loses nothing."""
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return PlainTensor(half if np.array_equal(half.astype(np.float32), values) else values)


def _q4_0(name: str, raw: np.ndarray, restore: Restore) -> AffineTensor:
    blocks = raw.reshape(len(raw), -1, 18)
    return _affine(name, _nibbles(blocks[:, :, 2:]), _halves(blocks, 0), restore, zero=8)


def _q4_1(name: str, raw: np.ndarray, restore: Restore) -> AffineTensor:
    blocks = raw.reshape(len(raw), -1, 20)
    return _affine(name, _nibbles(blocks[:, :, 4:]), _halves(blocks, 0), restore, minimum=_halves(blocks, 2))


def _q8_0(name: str, raw: np.ndarray, restore: Restore) -> AffineTensor:
    blocks = raw.reshape(len(raw), -1, 34)
    code = blocks[:, :, 2:] ^ np.uint8(128)  # two's complement + 128
    return _affine(name, code.reshape(len(raw), -1), _halves(blocks, 0), restore, zero=128, bits=8)


_READERS: dict[str, Callable[[str, np.ndarray, Restore], AffineTensor]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q8_0": _q8_0}


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """uint8 [rows, blocks, 16] -> codes [rows, blocks * 32]."""
    return np.concatenate((packed & 15, packed >> 4), axis=2).reshape(len(packed), -1)


def _halves(blocks: np.ndarray, at: int) -> np.ndarray:
    """The fp16 numbers at a byte of each block, as float32 [rows, blocks]."""
    return np.ascontiguousarray(blocks[:, :, at : at + 2]).view("<f2")[:, :, 0].astype(np.float32)


def _affine(
    name: str, code: np.ndarray, scale: np.ndarray, restore: Restore, *, zero: int = 0, bits: int = 4,
    minimum: np.ndarray | None = None,
) -> AffineTensor:  # fmt: skip
    for part in (scale, *([] if minimum is None else [minimum])):
        if not np.isfinite(part).all():
            raise CheckpointError(
                f"the scales of '{name}' hold NaN or infinity", wanted="finite numbers",
                hint="download the checkpoint again, or look into how it was saved",
            )  # fmt: skip
    options: dict[str, Any] = {"minimum": None if minimum is None else restore(minimum)}
    zeros = np.full(scale.shape, zero, np.uint8)
    return AffineTensor(restore(code), restore(scale), zeros, BLOCK, "float16", bits, **options)
