"""Tiny random Phi models, as tiny_llama.py has Llamas; and as a GGUF file, which llama.cpp's conversion would write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from tiny_checkpoints import byte_level, save_tokenizer
from transformers import PhiConfig, PhiForCausalLM

from satchel.export.families.base import DecoderConfig
from satchel.export.families.phi import configure

GGUF_NAMES = {
    "model.embed_tokens": "token_embd", "model.final_layernorm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}  # fmt: skip


def tiny_phi(
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate: int = 128,
    vocab: int = 256,
    rotated: float = 0.5,
    rope_theta: float = 10000.0,
    seed: int = 0,
) -> tuple[PhiForCausalLM, DecoderConfig]:
    """A random Phi in transformers (fp32, eval, weights and biases large enough to matter), our configuration of it."""
    torch.manual_seed(seed)
    reference = PhiForCausalLM(
        PhiConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=intermediate,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta, "partial_rotary_factor": rotated},
            initializer_range=0.15,
        )
    ).eval()
    with torch.no_grad():
        for name, p in reference.named_parameters():
            if name.endswith("bias"):
                p.normal_(0, 0.3)
            elif "layernorm" in name:
                p.uniform_(0.5, 1.5)
    return reference, configure(json.loads(reference.config.to_json_string()))


def phi_folder(path: Path, **options: object) -> Path:
    """Saves the model by transformers itself; 320 ids, of which the tokenizer uses 265."""
    reference, _ = tiny_phi(vocab=320, **options)  # type: ignore[arg-type]
    reference.save_pretrained(path)
    save_tokenizer(path)
    return path


def save_phi_gguf(
    path: Path,
    model: PhiForCausalLM,
    kind: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    *,
    fused: bool = False,
    tokenizer: Callable[[gguf.GGUFWriter], None] = byte_level,
) -> Path:
    """Writes a file of architecture phi2: matrices in `kind`, vectors in F32, q, k and v in one tensor if fused."""
    c = model.config
    writer = gguf.GGUFWriter(str(path), "phi2")
    writer.add_context_length(c.max_position_embeddings)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_embedding_length(c.hidden_size)
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count(c.num_attention_heads)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_eps(c.layer_norm_eps)
    factor = c.rope_parameters["partial_rotary_factor"]
    writer.add_rope_dimension_count(int(factor * c.hidden_size) // c.num_attention_heads)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    tokenizer(writer)
    for name, values in _gguf_tensors(model, fused).items():
        stored = kind if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _gguf_tensors(model: PhiForCausalLM, fused: bool) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for key, value in model.state_dict().items():
        module, _, last = key.rpartition(".")
        layer = module.removeprefix("model.layers.").partition(".")
        inside = module.startswith("model.layers.")
        name = f"blk.{layer[0]}.{GGUF_NAMES[layer[2]]}" if inside else GGUF_NAMES[module]
        found[f"{name}.{last}"] = value.float().numpy()
    if fused:
        for i in range(model.config.num_hidden_layers):
            for last in ("weight", "bias"):
                parts = [found.pop(f"blk.{i}.attn_{n}.{last}") for n in "qkv"]
                found[f"blk.{i}.attn_qkv.{last}"] = np.concatenate(parts)
    return found
