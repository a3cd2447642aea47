"""Tiny random checkpoints of Phi-3-small, as Microsoft's: names and the order of rows of its own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

PHI3SMALL = {
    "architectures": ["Phi3SmallForCausalLM"], "attention_dropout_prob": 0.0, "auto_map": {"AutoConfig": "none.None"},
    "blocksparse_block_size": 4, "blocksparse_homo_head_pattern": False, "blocksparse_num_local_blocks": 2,
    "blocksparse_triton_kernel_block_size": 64, "blocksparse_vert_stride": 3, "bos_token_id": 1,
    "dense_attention_every_n_layers": 2, "dummy_token_indices": [7, 150], "embedding_dropout_prob": 0.1,
    "eos_token_id": 2, "ff_dim_multiplier": None, "ff_intermediate_size": 48, "ffn_dropout_prob": 0.1,
    "gegelu_limit": 1.5, "gegelu_pad_to_256": True, "hidden_act": "gegelu", "hidden_size": 64,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-5, "max_position_embeddings": 256, "model_type": "phi3small",
    "mup_attn_multiplier": 1.0, "mup_embedding_multiplier": 10.0, "mup_use_scaling": True,
    "mup_width_multiplier": 8.0, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
    "reorder_and_upcast_attn": False, "rope_embedding_base": 1000000, "rope_position_scale": 1.0,
    "torch_dtype": "float32", "transformers_version": "4.38.1", "use_cache": True, "vocab_size": 160,
    "pad_sequence_to_multiple_of_64": True,
}  # fmt: skip
"""Every option of the published configuration; blocks of 4 tokens, so that short sequences are long."""

CONFIG = PHI3SMALL


def tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Values by the names of the checkpoint."""
    random, hidden, width = np.random.default_rng(0), config["hidden_size"], config["ff_intermediate_size"]
    heads, kv = config["num_attention_heads"], config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": random.normal(0, 0.1, (config["vocab_size"], hidden))}
    norms = ["model.final_layernorm"]
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}"
        norms += [f"{p}.input_layernorm", f"{p}.post_attention_layernorm"]
        linears = {
            "self_attn.query_key_value": ((heads + 2 * kv) * (hidden // heads), hidden),
            "self_attn.dense": (hidden, hidden), "mlp.up_proj": (2 * width, hidden), "mlp.down_proj": (hidden, width),
        }  # fmt: skip
        for name, shape in linears.items():
            found[f"{p}.{name}.weight"] = random.normal(0, 0.4, shape)
            found[f"{p}.{name}.bias"] = random.normal(0, 0.2, shape[0])
    for name in norms:
        found[f"{name}.weight"] = random.uniform(0.5, 1.5, hidden)
        found[f"{name}.bias"] = random.normal(0, 0.2, hidden)
    # So that logits differ in spite of their multiplier.
    found["model.final_layernorm.weight"] *= config["mup_width_multiplier"]
    if not config.get("tie_word_embeddings", True):
        found["lm_head.weight"] = random.normal(0, 0.1, (config["vocab_size"], hidden))
    return {name: values.astype(np.float32) for name, values in found.items()}


def save(folder: Path, options: dict[str, Any]) -> None:
    """A folder; options that differ from PHI3SMALL."""
    config = PHI3SMALL | options
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors(config), folder / "model.safetensors")
