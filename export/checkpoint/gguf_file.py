"""A GGUF file: Q4_0, Q4_1, Q8_0, F16, F32, BF16 and whatever else gguf-py can decode."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import QuantError, dequantize

from satchel.export.checkpoint.base import Checkpoint
from satchel.export.checkpoint.gguf_header import GgufHeader, TensorEntry, read_header
from satchel.runtime.errors import CheckpointError

ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the inverse frequencies: how llama.cpp stores the scaling of Llama 3.1 and later."""

CHUNK = 1 << 20  # values decoded at a time, so that the blocks' intermediates stay small

# Metadata key without the architecture -> key of a Hugging Face configuration.
CONFIG_KEYS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps",
    "vocab_size": "vocab_size",
}
ROPE_KEYS = ("rope.freq_base", "rope.dimension_count", "attention.key_length", "attention.value_length")
SCALING_KEYS = tuple(f"rope.scaling.{k}" for k in ("type", "factor", "finetuned", "original_context_length"))


class GgufCheckpoint(Checkpoint):
    """Tensors of a GGUF file, under their GGUF names and with llama.cpp's order of rows."""

    kind = "gguf"

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            CheckpointError: it is missing, truncated, not GGUF, or one of several parts.
        """
        self.path, self.files = path, [path]
        self._data = _map(path)
        header = read_header(self._data, path.name)
        self.metadata = header.metadata
        self._entries = {n: e for n, e in header.tensors.items() if n != ROPE_FACTORS}
        _check_parts(header.metadata)
        factors = self._factors(header.tensors.get(ROPE_FACTORS))
        self.config = make_config(header, factors)
        self.generation_config = {}

    def names(self) -> list[str]:  # noqa: D102
        return sorted(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:  # noqa: D102
        return self._entries[name].shape

    def blocks(self, name: str) -> tuple[str, np.ndarray]:
        """How a tensor is stored, such as "Q4_1", and its bytes as the file has them, uint8 [rows, bytes of a row]."""
        entry = self._entries[name]
        raw = np.frombuffer(self._data, np.uint8, entry.bytes, entry.offset)
        return entry.type.name, raw.reshape(entry.shape[0], -1)

    def _read(self, name: str, rows: slice) -> np.ndarray:
        return self._decode(name, self._entries[name], rows)

    def _decode(self, name: str, entry: TensorEntry, rows: slice) -> np.ndarray:
        raw = np.frombuffer(self._data, np.uint8, entry.bytes, entry.offset)
        if len(entry.shape) == 1:
            return _dequantize(name, raw, entry.type)[rows]
        raw = raw.reshape(entry.shape[0], -1)[rows]
        out = np.empty((raw.shape[0], *entry.shape[1:]), np.float32)
        step = max(1, CHUNK // max(1, int(np.prod(entry.shape[1:]))))
        for start in range(0, raw.shape[0], step):
            part = slice(start, start + step)
            out[part] = _dequantize(name, raw[part], entry.type).reshape(out[part].shape)
        self._release(entry)
        return out

    def _release(self, entry: TensorEntry) -> None:
        """Lets the system take back the pages of a tensor; what stays mapped would count as this process's memory."""
        if hasattr(mmap, "MADV_DONTNEED"):
            start = entry.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._data.madvise(mmap.MADV_DONTNEED, start, entry.offset + entry.bytes - start)

    def _factors(self, entry: TensorEntry | None) -> list[float] | None:
        return None if entry is None else [float(f) for f in self._decode(ROPE_FACTORS, entry, slice(None))]

    def _about(self) -> tuple[str, str, str]:
        author = self.metadata.get("general.author") or self.metadata.get("general.organization") or ""
        name = self.metadata.get("general.license") or self.metadata.get("general.license.name") or ""
        return str(author), str(name), ""


def make_config(header: GgufHeader, factors: list[float] | None) -> dict[str, Any]:
    """Metadata -> a configuration as Hugging Face writes it.

    Args:
        header: of the file.
        factors: the file's divisors of the inverse frequencies, if it has them.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise CheckpointError("the GGUF file does not say its architecture", wanted="general.architecture")
    prefix = f"{architecture}."
    own = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    config = {CONFIG_KEYS[k]: v for k, v in own.items() if k in CONFIG_KEYS}
    config |= {prefix + k: v for k, v in own.items() if k not in (*CONFIG_KEYS, *ROPE_KEYS, *SCALING_KEYS)}
    config |= _tokens(metadata) | _rope(own, factors)
    tokens = metadata.get("tokenizer.ggml.tokens")
    if "vocab_size" not in config and isinstance(tokens, list):
        config["vocab_size"] = len(tokens)
    return config | {"model_type": architecture, "tie_word_embeddings": "output.weight" not in header.tensors}


def _tokens(metadata: Mapping[str, Any]) -> dict[str, Any]:
    ids = {"bos_token_id": metadata.get("tokenizer.ggml.bos_token_id")}
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    return ids | {"eos_token_id": list(dict.fromkeys(e for e in ends if e is not None))}


def _rope(own: Mapping[str, Any], factors: list[float] | None) -> dict[str, Any]:
    """head_dim (where it is stated) and rope_parameters; a head is as wide as llama.cpp takes it to be."""
    rotated, key, value = (_whole(own, k) for k in ROPE_KEYS[1:])
    hidden, heads = (_whole(own, k) for k in ("embedding_length", "attention.head_count"))
    head_dim = key or (hidden // heads if hidden and heads else None)
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": own.get("rope.freq_base", 10000.0)}
    kind = own.get("rope.scaling.type", "none")
    if kind != "none":
        parameters |= {"rope_type": kind, "factor": own.get("rope.scaling.factor")}
    if factors is not None:
        parameters |= {"rope_type": "gguf_factors" if kind == "none" else f"{kind} with factors", "factors": factors}
    if head_dim:
        parameters["partial_rotary_factor"] = (rotated or head_dim) / head_dim
    if value and value != head_dim:
        parameters["value_length"] = value
    return {"rope_parameters": parameters} | ({"head_dim": key} if key else {})


def _whole(own: Mapping[str, Any], key: str) -> int | None:
    value = own.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise CheckpointError(
            f"the GGUF file's '{key}' is not usable", got=repr(value)[:80], wanted="an integer above 0"
        )
    return value


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise CheckpointError(f"{path.name} cannot be opened", got=error, wanted="a GGUF file") from None


def _check_parts(metadata: Mapping[str, Any]) -> None:
    if metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            "the GGUF file is one of several parts",
            got=metadata["split.count"],
            wanted="one file",
            hint="join them with llama.cpp's llama-gguf-split --merge",
        )


def _dequantize(name: str, raw: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    try:
        return np.asarray(dequantize(raw, kind))
    except (NotImplementedError, QuantError, ValueError) as error:
        raise CheckpointError(
            f"'{name}' is stored as {kind.name}, which cannot be decoded", got=error, wanted="Q4_0, Q8_0, F16, ..."
        ) from None
