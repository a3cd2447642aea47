"""GGUF files of tiny models of any family, as llama.cpp's conversion would write them, by gguf-py and its own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tiny_checkpoints import byte_level

Q = gguf.GGMLQuantizationType
PERMUTED = ("llama", "smollm3", "granite")
"""Architectures that rotate neighbouring channels there, so that rows of q and k are reordered."""
ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3", "phi": "phi2"}
"""What llama.cpp calls a model_type otherwise."""
SHIFTED = ("gemma", "gemma2", "gemma3")
"""Architectures whose gains are stored with the 1 that the model adds."""


def save(path: Path, model: Any, kind: Q = Q.F32) -> Path:
    """Writes matrices in `kind` and vectors in F32."""
    c = model.config
    architecture = ARCHITECTURES.get(c.model_type, c.model_type)
    number = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == architecture)
    writer = gguf.GGUFWriter(str(path), architecture)
    dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    writer.add_context_length(c.max_position_embeddings)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    if hasattr(c, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(c.layer_norm_eps)
    if architecture == "stablelm":
        writer.add_parallel_residual(c.use_parallel_residual)
    if dim != c.hidden_size // c.num_attention_heads or architecture in SHIFTED:
        writer.add_key_length(dim)
        writer.add_value_length(dim)
    _rope(writer, c, dim)
    _special(writer, c, architecture)
    byte_level(writer)
    for name, values in _tensors(model, number, architecture).items():
        stored = kind if values.ndim == 2 and "norm" not in name else Q.F32
        writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _special(writer: gguf.GGUFWriter, c: Any, architecture: str) -> None:
    """What one architecture alone says."""
    if architecture in ("phi3", "gemma2", "gemma3"):
        writer.add_sliding_window(c.sliding_window or 0)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(c.attn_logit_softcapping)
        writer.add_final_logit_softcapping(c.final_logit_softcapping)
    if architecture == "granite":
        writer.add_attention_scale(c.attention_multiplier)
        writer.add_embedding_scale(c.embedding_multiplier)
        writer.add_residual_scale(c.residual_multiplier)
        writer.add_logit_scale(c.logits_scaling)


def _rope(writer: gguf.GGUFWriter, c: Any, dim: int) -> None:
    rope = c.rope_parameters.get("full_attention", c.rope_parameters)
    writer.add_rope_dimension_count(int(dim * rope.get("partial_rotary_factor", 1.0)))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "longrope":
        original = c.original_max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        factor = c.max_position_embeddings / original
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(factor) / np.log(original))))
        for kind in ("long", "short"):
            writer.add_tensor(f"rope_factors_{kind}.weight", np.array(rope[f"{kind}_factor"], np.float32))
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _tensors(model: Any, number: gguf.MODEL_ARCH, architecture: str) -> dict[str, np.ndarray]:
    c, names = model.config, gguf.get_tensor_name_map(number, model.config.num_hidden_layers)
    found: dict[str, np.ndarray] = {}
    for key, parameter in model.state_dict().items():
        if c.tie_word_embeddings and key == "lm_head.weight":
            continue
        values = parameter.float().numpy()
        if architecture in SHIFTED and key.endswith("norm.weight"):
            values = values + np.float32(1)
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(key.split(".")[-2])
        if architecture in PERMUTED and heads:
            pairs = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
            values = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
        head = key.split(".norms.")
        name = names.get_name(f"{head[0]}.weight" if len(head) > 1 else key, (".weight", ".bias"))
        assert name, key
        if len(head) > 1:  # StableLM's gains, stacked
            rows = found.setdefault(name, np.zeros((0, values.size), np.float32))
            found[name] = np.concatenate([rows, values[None]])
        else:
            found[name] = values
    return found
