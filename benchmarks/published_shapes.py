"""Configurations of published models, as their pages have them, for checkpoints of random weights in their real shapes.

OpenELM's heads and widths of each layer follow from the rule of its training code (corenet): multipliers from 0.5 to 1
for the heads and from 0.5 to 4 for the MLP, evenly spaced over the layers, each size rounded to a multiple.
"""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]


def _sizes(
    hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocab: int, positions: int
) -> Config:
    return {
        "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocab,
        "max_position_embeddings": positions,
    }  # fmt: skip


def _phi(partial: float, *sizes: int) -> Config:
    return {
        "model_type": "phi", "architectures": ["PhiForCausalLM"], "hidden_act": "gelu_new", "layer_norm_eps": 1e-5,
        "rope_theta": 10000.0, "partial_rotary_factor": partial, "tie_word_embeddings": False,
        "bos_token_id": 50256, "eos_token_id": 50256, **_sizes(*sizes),
    }  # fmt: skip


def _phi3(*sizes: int) -> Config:
    return {
        "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "rope_scaling": None, "sliding_window": 2047, "tie_word_embeddings": False,
        "original_max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 32000, "pad_token_id": 32000,
        **_sizes(*sizes),
    }  # fmt: skip


def divisible(size: float, step: int) -> int:
    """The nearest multiple of `step`, not more than a tenth below `size`, as OpenELM's configuration code has it."""
    nearest = max(step, int(size + step / 2) // step * step)
    return nearest + step if nearest < 0.9 * size else nearest


def _openelm(layers: int, hidden: int, head_dim: int, groups: int, vocab: int) -> Config:
    shares = [i / max(layers - 1, 1) for i in range(layers)]
    queries = [divisible(hidden * round(0.5 + 0.5 * s, 2), head_dim * groups) // head_dim for s in shares]
    return {
        "model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "activation_fn_name": "swish",
        "normalization_layer_name": "rms_norm", "normalize_qk_projections": True, "ffn_with_glu": True,
        "ffn_dim_divisor": 256, "ffn_multipliers": [round(0.5 + 3.5 * s, 2) for s in shares],
        "head_dim": head_dim, "model_dim": hidden, "num_transformer_layers": layers, "num_gqa_groups": groups,
        "num_query_heads": queries, "num_kv_heads": [q // groups for q in queries], "qkv_multipliers": [0.5, 1.0],
        "rope_freq_constant": 10000, "rope_max_length": 4096, "max_context_length": 2048,
        "share_input_output_layers": True, "vocab_size": vocab, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


SHAPES: dict[str, Config] = {
    "phi-1.5": _phi(0.5, 2048, 8192, 24, 32, 32, 51200, 2048),
    "phi-2": _phi(0.4, 2560, 10240, 32, 32, 32, 51200, 2048),
    "openelm-3b": _openelm(36, 3072, 128, 4, 32000),
    "phi-3-mini": _phi3(3072, 8192, 32, 32, 32, 32064, 4096),
    "phi-3-medium": _phi3(5120, 17920, 40, 40, 10, 32064, 4096),
    "tiny-phi": _phi(0.5, 256, 512, 2, 4, 4, 5120, 512) | {"bos_token_id": 0, "eos_token_id": 1},
    "tiny-openelm": _openelm(3, 256, 32, 2, 4096),
}
"""By name; the tiny ones are for trying this out."""

PARAMETERS = {
    "phi-1.5": 1_418_270_720, "phi-2": 2_779_683_840, "openelm-3b": 3_036_647_424, "phi-3-mini": 3_821_079_552,
    "phi-3-medium": 13_960_238_080,
}  # fmt: skip
"""What the models' pages state."""
