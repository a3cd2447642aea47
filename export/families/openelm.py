"""OpenELM, 270M to 3B, base and Instruct.

Special about it: layers differ in their heads and in the width of their MLPs, and each head of queries and keys is
normed. transformers does not have it; it is Qwen 3 but for the layers' sizes, so the reference is transformers' Qwen 3
with layers of those sizes. The code that comes with its checkpoints is never run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satchel.export.families import qwen3
from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Layer, Place, Stand
from satchel.export.families.options import (
    LIMITS,
    count,
    expand,
    flag,
    fused_gate_up,
    fused_qkv,
    positive,
    refuse_unknown,
    refuse_unsupported,
    refuse_values,
    token_ids,
)
from satchel.export.rope import make_rope
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "OpenELMForCausalLM"
EPSILON = 1e-6
"""Of its norms, which its configuration does not say."""

READ = (
    "model_type", "architectures", "auto_map", "vocab_size", "model_dim", "head_dim", "num_transformer_layers",
    "num_query_heads", "num_kv_heads", "num_gqa_groups", "qkv_multipliers", "ffn_multipliers", "ffn_dim_divisor",
    "ffn_with_glu", "activation_fn_name", "normalization_layer_name", "normalize_qk_projections",
    "share_input_output_layers", "rope_freq_constant", "rope_max_length", "max_context_length", "bos_token_id",
    "eos_token_id",
)  # fmt: skip
"""Options that are carried out, or checked, or say the same as others (num_gqa_groups, qkv_multipliers)."""

TENSORS = {
    "layers.{i}.input_layernorm": "transformer.layers.{i}.attn_norm.weight",
    "layers.{i}.self_attn.q_norm": "transformer.layers.{i}.attn.q_norm.weight",
    "layers.{i}.self_attn.k_norm": "transformer.layers.{i}.attn.k_norm.weight",
    "layers.{i}.self_attn.o_proj": "transformer.layers.{i}.attn.out_proj.weight",
    "layers.{i}.post_attention_layernorm": "transformer.layers.{i}.ffn_norm.weight",
    "layers.{i}.mlp.down_proj": "transformer.layers.{i}.ffn.proj_2.weight",
    "embed_tokens": "transformer.token_embeddings.weight",
    "norm": "transformer.norm.weight",
    "lm_head": "lm_head.weight",
}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours.

    Raises:
        CheckpointError: an option is missing, unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)
    refuse_values(config, {"activation_fn_name": "swish", "normalization_layer_name": "rms_norm"})
    vocab, dim = count(config, "vocab_size"), count(config, "head_dim", 64)
    if not flag(config, "ffn_with_glu", True):
        raise CheckpointError("an OpenELM whose MLP has no gate is not supported", got="ffn_with_glu=false")
    positions = count({"max_position_embeddings": config.get("max_context_length")}, "max_position_embeddings", 2048)
    rope = make_rope({"rope_theta": positive(config, "rope_freq_constant", 10000)}, dim, positions)
    layers = _layers(config, Layer(1, 1, 1, rope))
    bos = token_ids(config, "bos_token_id", vocab)
    return DecoderConfig(
        family="openelm",
        vocab_size=vocab,
        hidden_size=_hidden(config),
        layers=len(layers),
        heads=max(layer.heads for layer in layers),
        kv_heads=max(layer.kv_heads for layer in layers),
        head_dim=dim,
        intermediate_size=max(layer.intermediate_size for layer in layers),
        norm_eps=EPSILON,
        activation="silu",
        tied_embeddings=flag(config, "share_input_output_layers", True),
        max_position=positions,
        rope=rope,
        layer_options=layers,
        qk_norm="head" if flag(config, "normalize_qk_projections", True) else "",
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=token_ids(config, "eos_token_id", vocab),
    )


def _hidden(config: Mapping[str, Any]) -> int:
    return count({"hidden_size": config.get("model_dim")}, "hidden_size")


def _layers(config: Mapping[str, Any], shared: Layer) -> tuple[Layer, ...]:
    number = count({"num_hidden_layers": config.get("num_transformer_layers")}, "num_hidden_layers")
    most = LIMITS["num_attention_heads"]
    queries, keys = (_each(config, name, number, most) for name in ("num_query_heads", "num_kv_heads"))
    if any(q != int(q) or k != int(k) or q % k for q, k in zip(queries, keys, strict=True)):
        raise CheckpointError("the heads do not divide evenly", got=f"{queries} query heads, {keys} key-value heads")
    divisor = positive(config, "ffn_dim_divisor", 256)
    widths = [_divisible(m * _hidden(config), divisor) for m in _each(config, "ffn_multipliers", number, 64)]
    return tuple(Layer(int(q), int(k), width, shared.rope) for q, k, width in zip(queries, keys, widths, strict=True))


def _each(config: Mapping[str, Any], key: str, layers: int, most: float) -> list[float]:
    """A number above 0 for each layer."""
    given = config.get(key)
    numbers = given if isinstance(given, list) else []
    good = [v for v in numbers if isinstance(v, int | float) and not isinstance(v, bool) and 0 < v <= most]
    if len(good) != layers or len(numbers) != layers:
        raise CheckpointError(
            f"the configuration's '{key}' is not usable", got=repr(given)[:120], wanted=f"{layers} numbers above 0"
        )
    return good


def _divisible(size: float, divisor: float) -> int:
    """The nearest multiple of the divisor, at least one, and not more than a tenth below `size`."""
    step = int(divisor)
    nearest = max(step, int(size + step / 2) // step * step)
    return nearest + step if nearest < 0.9 * size else nearest


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a Hugging Face checkpoint has each tensor."""
    fused = fused_qkv(config, "transformer.layers.{i}.attn.qkv_proj")
    return expand(TENSORS, config, {**fused, **fused_gate_up(config, "transformer.layers.{i}.ffn.proj_1")})


def gguf_tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a GGUF file has each tensor; gate and up are two there."""
    return expand(qwen3.GGUF_TENSORS, config, dict(fused_qkv(config, "blk.{i}.attn_qkv")))


def stand_in(given: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """A Qwen 3 of the largest layer's sizes."""
    return {
        "model_type": "qwen3", "architectures": [qwen3.ARCHITECTURE], "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim, "rms_norm_eps": config.norm_eps,
        "max_position_embeddings": config.max_position, "tie_word_embeddings": config.tied_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(given.get("rope_freq_constant", 10000))},
        "pad_token_id": None,
    }  # fmt: skip


def stand_in_layer(config: DecoderConfig, i: int) -> dict[str, Any]:
    """What a layer of it has of its own."""
    layer = config.layer(i)
    return {
        "num_attention_heads": layer.heads,
        "num_key_value_heads": layer.kv_heads,
        "intermediate_size": layer.intermediate_size,
    }


def adapt(model: Any, config: DecoderConfig) -> None:
    """Takes the norms of queries and keys away where there are none."""
    import torch

    for layer in model.model.layers if not config.qk_norm else ():
        layer.self_attn.q_norm = layer.self_attn.k_norm = torch.nn.Identity()


OPENELM = Family(
    name="openelm",
    model_types=("openelm",),
    configure=configure,
    tensor_names=tensor_names,
    tied_head="lm_head.weight",
    gguf=GgufLayout(gguf_tensor_names),
    stand=Stand(stand_in, stand_in_layer, qwen3.QWEN3.tensor_names, adapt),
    published=tuple(
        f"apple/OpenELM-{size}{kind}" for size in ("270M", "450M", "1_1B", "3B") for kind in ("", "-Instruct")
    ),
    always=("heads of a width of their own", "layers of different sizes"),
    options=("grouped queries", "norms of queries and keys", "tied head"),
    checked="a Qwen 3 of transformers' with layers of those sizes, and llama.cpp",
)  # fmt: skip
