"""Tiny random OpenELM checkpoints: a folder as Apple's, and a GGUF file as llama.cpp's conversion would write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import save_file
from tiny_checkpoints import byte_level

OPENELM = {
    "activation_fn_name": "swish", "architectures": ["OpenELMForCausalLM"], "auto_map": {"AutoConfig": "none.None"},
    "bos_token_id": 1, "eos_token_id": 2, "ffn_dim_divisor": 16, "ffn_multipliers": [0.5, 1.1, 2.0],
    "ffn_with_glu": True, "head_dim": 16, "initializer_range": 0.02, "max_context_length": 64, "model_dim": 64,
    "model_type": "openelm", "normalization_layer_name": "rms_norm", "normalize_qk_projections": True,
    "num_gqa_groups": 2, "num_kv_heads": [1, 2, 3], "num_query_heads": [2, 4, 6], "num_transformer_layers": 3,
    "qkv_multipliers": [0.5, 1.0], "rope_freq_constant": 10000, "rope_max_length": 128,
    "share_input_output_layers": True, "torch_dtype": "float32", "transformers_version": "4.39.3", "use_cache": True,
    "vocab_size": 265,
}  # fmt: skip
CONFIG = OPENELM
WIDTHS = (32, 64, 128)
"""What the multipliers come to: 0.5, 1.1 and 2.0 times 64, to the nearest multiple of 16 (70.4 to 64)."""
GGUF_NAMES = {
    "attn_norm": "attn_norm", "attn.q_norm": "attn_q_norm", "attn.k_norm": "attn_k_norm", "attn.qkv_proj": "attn_qkv",
    "attn.out_proj": "attn_output", "ffn_norm": "ffn_norm", "ffn.proj_2": "ffn_down",
}  # fmt: skip


def tensors(c: dict[str, Any] = OPENELM) -> dict[str, np.ndarray]:
    """Values by the names of the checkpoint that has this configuration."""
    random = np.random.default_rng(0)
    hidden, dim = c["model_dim"], c["head_dim"]
    shapes: dict[str, tuple[int, ...]] = {"token_embeddings": (c["vocab_size"], hidden), "norm": (hidden,)}
    for i, (q, kv, width) in enumerate(zip(c["num_query_heads"], c["num_kv_heads"], WIDTHS, strict=True)):
        p = f"layers.{i}"
        shapes |= {f"{p}.attn_norm": (hidden,), f"{p}.ffn_norm": (hidden,)}
        if c["normalize_qk_projections"]:
            shapes |= {f"{p}.attn.q_norm": (dim,), f"{p}.attn.k_norm": (dim,)}
        shapes |= {f"{p}.attn.qkv_proj": ((q + 2 * kv) * dim, hidden), f"{p}.attn.out_proj": (hidden, q * dim)}
        shapes |= {f"{p}.ffn.proj_1": (2 * width, hidden), f"{p}.ffn.proj_2": (hidden, width)}
    found = {f"transformer.{name}.weight": _values(random, shape) for name, shape in shapes.items()}
    return (
        found
        if c["share_input_output_layers"]
        else found | {"lm_head.weight": _values(random, (c["vocab_size"], hidden))}
    )


def _values(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = random.normal(0, 0.2, shape) if len(shape) == 2 else random.uniform(0.5, 1.5, shape)
    return values.astype(np.float32)


def save(folder: Path, options: dict[str, Any]) -> None:
    """A folder; options that differ from OPENELM."""
    config = OPENELM | options
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(config), folder / "model.safetensors")


def save_gguf(path: Path) -> Path:
    """A file in F32."""
    c = OPENELM
    writer = gguf.GGUFWriter(str(path), "openelm")
    writer.add_block_count(c["num_transformer_layers"])
    writer.add_context_length(c["max_context_length"])
    writer.add_embedding_length(c["model_dim"])
    writer.add_feed_forward_length(list(WIDTHS))
    writer.add_head_count(c["num_query_heads"])
    writer.add_head_count_kv(c["num_kv_heads"])
    writer.add_rope_freq_base(c["rope_freq_constant"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(c["head_dim"])
    writer.add_key_length(c["head_dim"])
    writer.add_value_length(c["head_dim"])
    byte_level(writer)
    for name, values in tensors().items():
        inner = name.removeprefix("transformer.").removesuffix(".weight")
        if not inner.startswith("layers."):
            writer.add_tensor({"token_embeddings": "token_embd.weight", "norm": "output_norm.weight"}[inner], values)
            continue
        _, layer, part = inner.split(".", 2)
        if part == "ffn.proj_1":
            gate, up = np.split(values, 2)
            writer.add_tensor(f"blk.{layer}.ffn_gate.weight", np.ascontiguousarray(gate))
            writer.add_tensor(f"blk.{layer}.ffn_up.weight", np.ascontiguousarray(up))
        else:
            writer.add_tensor(f"blk.{layer}.{GGUF_NAMES[part]}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
