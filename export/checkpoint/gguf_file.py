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

LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
"""The same of Phi-3's LongRoPE: for contexts beyond the original one, and up to it."""
FACTORS = (ROPE_FACTORS, LONG_FACTORS, SHORT_FACTORS)

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
    "attention.sliding_window": "sliding_window",
    "use_parallel_residual": "use_parallel_residual",
    "vocab_size": "vocab_size",
}
ROPE_KEYS = ("rope.freq_base", "rope.dimension_count", "attention.key_length", "attention.value_length")
SCALING_KEYS = tuple(
    f"rope.scaling.{k}" for k in ("type", "factor", "finetuned", "original_context_length", "attn_factor")
)
TOLD_BY_TENSORS = {
    "stablelm": {"use_qkv_bias": "blk.0.attn_q.bias", "qk_layernorm": "blk.0.attn_q_norm.weight"},
}
"""Architecture -> options that its files do not state -> the tensor that says that they are on."""


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
        factors = {n: self._factors(n, e) for n, e in header.tensors.items() if n in FACTORS}
        self._entries = {n: e for n, e in header.tensors.items() if n not in factors}
        _check_parts(header.metadata)
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

    def _factors(self, name: str, entry: TensorEntry) -> list[float]:
        return [float(f) for f in self._decode(name, entry, slice(None))]

    def _about(self) -> tuple[str, str, str]:
        author = self.metadata.get("general.author") or self.metadata.get("general.organization") or ""
        name = self.metadata.get("general.license") or self.metadata.get("general.license.name") or ""
        return str(author), str(name), ""


def make_config(header: GgufHeader, factors: Mapping[str, list[float]]) -> dict[str, Any]:
    """Metadata -> a configuration as Hugging Face writes it.

    Args:
        header: of the file.
        factors: the file's divisors of the inverse frequencies, as far as it has them, by FACTORS.
    """
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise CheckpointError("the GGUF file does not say its architecture", wanted="general.architecture")
    prefix = f"{architecture}."
    own = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    config = {CONFIG_KEYS[k]: v for k, v in own.items() if k in CONFIG_KEYS}
    config |= {prefix + k: v for k, v in own.items() if k not in (*CONFIG_KEYS, *ROPE_KEYS, *SCALING_KEYS)}
    config = {k: v for k, v in config.items() if k != "sliding_window" or v != 0}
    config |= {k: name in header.tensors for k, name in TOLD_BY_TENSORS.get(architecture, {}).items()}
    config |= _tokens(metadata) | _rope(own, factors)
    tokens = metadata.get("tokenizer.ggml.tokens")
    if "vocab_size" not in config and isinstance(tokens, list):
        config["vocab_size"] = len(tokens)
    return config | {"model_type": architecture, "tie_word_embeddings": "output.weight" not in header.tensors}


def _tokens(metadata: Mapping[str, Any]) -> dict[str, Any]:
    ids = {"bos_token_id": metadata.get("tokenizer.ggml.bos_token_id")}
    ends = [metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    return ids | {"eos_token_id": list(dict.fromkeys(e for e in ends if e is not None))}


def _rope(own: Mapping[str, Any], factors: Mapping[str, list[float]]) -> dict[str, Any]:
    """head_dim (where it is stated) and rope_parameters; a head is as wide as llama.cpp takes it to be."""
    rotated, key, value = (_whole(own, k) for k in ROPE_KEYS[1:])
    hidden, heads = (_whole(own, k) for k in ("embedding_length", "attention.head_count"))
    head_dim = key or (hidden // heads if hidden and heads else None)
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": own.get("rope.freq_base", 10000.0)}
    kind = own.get("rope.scaling.type", "none")
    if kind != "none":
        parameters |= {"rope_type": kind, "factor": own.get("rope.scaling.factor")}
    if ROPE_FACTORS in factors:
        name = "gguf_factors" if kind == "none" else f"{kind} with factors"
        parameters |= {"rope_type": name, "factors": factors[ROPE_FACTORS]}
    original = {}
    if LONG_FACTORS in factors or SHORT_FACTORS in factors:
        parameters |= {"rope_type": "longrope", "attention_factor": own.get("rope.scaling.attn_factor")}
        parameters |= {"long_factor": factors.get(LONG_FACTORS), "short_factor": factors.get(SHORT_FACTORS)}
        original["original_max_position_embeddings"] = own.get("rope.scaling.original_context_length")
    if head_dim:
        parameters["partial_rotary_factor"] = (rotated or head_dim) / head_dim
    if value and value != head_dim:
        parameters["value_length"] = value
    return {"rope_parameters": parameters} | ({"head_dim": key} if key else {}) | original


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
