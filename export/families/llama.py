"""The Llama family: Llama 2 and 3, SmolLM2, TinyLlama, and others that say model_type "llama".

Special about it: llama.cpp's conversion reorders the rows of q_proj and k_proj, since it rotates neighbouring channels
where the original rotates channels half a head apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Rope
from satchel.export.families.options import count, flag, refuse_unknown, token_ids
from satchel.export.rope import make_rope
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "LlamaForCausalLM"

ACTIVATIONS: dict[str, Literal["silu", "gelu_tanh"]] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings",
    "rms_norm_eps", "rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "attention_bias",
    "mlp_bias", "bos_token_id", "eos_token_id", "is_llama_config", "rope_interleaved",
)  # fmt: skip
"""Options that are carried out, or checked: is_llama_config and rope_interleaved are SmolLM2's."""

TENSORS = {
    "layers.{i}.input_layernorm": "model.layers.{i}.input_layernorm.weight",
    "layers.{i}.self_attn.q_proj": "model.layers.{i}.self_attn.q_proj.weight",
    "layers.{i}.self_attn.k_proj": "model.layers.{i}.self_attn.k_proj.weight",
    "layers.{i}.self_attn.v_proj": "model.layers.{i}.self_attn.v_proj.weight",
    "layers.{i}.self_attn.o_proj": "model.layers.{i}.self_attn.o_proj.weight",
    "layers.{i}.self_attn.q_proj.bias": "model.layers.{i}.self_attn.q_proj.bias",
    "layers.{i}.self_attn.k_proj.bias": "model.layers.{i}.self_attn.k_proj.bias",
    "layers.{i}.self_attn.v_proj.bias": "model.layers.{i}.self_attn.v_proj.bias",
    "layers.{i}.self_attn.o_proj.bias": "model.layers.{i}.self_attn.o_proj.bias",
    "layers.{i}.post_attention_layernorm": "model.layers.{i}.post_attention_layernorm.weight",
    "layers.{i}.mlp.gate_proj": "model.layers.{i}.mlp.gate_proj.weight",
    "layers.{i}.mlp.up_proj": "model.layers.{i}.mlp.up_proj.weight",
    "layers.{i}.mlp.down_proj": "model.layers.{i}.mlp.down_proj.weight",
    "layers.{i}.mlp.gate_proj.bias": "model.layers.{i}.mlp.gate_proj.bias",
    "layers.{i}.mlp.up_proj.bias": "model.layers.{i}.mlp.up_proj.bias",
    "layers.{i}.mlp.down_proj.bias": "model.layers.{i}.mlp.down_proj.bias",
    "embed_tokens": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "lm_head": "lm_head.weight",
}

GGUF_TENSORS = {
    "layers.{i}.input_layernorm": "blk.{i}.attn_norm.weight",
    "layers.{i}.self_attn.q_proj": "blk.{i}.attn_q.weight",
    "layers.{i}.self_attn.k_proj": "blk.{i}.attn_k.weight",
    "layers.{i}.self_attn.v_proj": "blk.{i}.attn_v.weight",
    "layers.{i}.self_attn.o_proj": "blk.{i}.attn_output.weight",
    "layers.{i}.post_attention_layernorm": "blk.{i}.ffn_norm.weight",
    "layers.{i}.mlp.gate_proj": "blk.{i}.ffn_gate.weight",
    "layers.{i}.mlp.up_proj": "blk.{i}.ffn_up.weight",
    "layers.{i}.mlp.down_proj": "blk.{i}.ffn_down.weight",
    "embed_tokens": "token_embd.weight",
    "norm": "output_norm.weight",
    "lm_head": "output.weight",
}
"""No biases: GGUF files of this architecture that have them are refused as holding unexpected tensors, since the
reference (transformers) would leave them out."""


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' LlamaConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    _refuse_unsupported(config)
    refuse_unknown(config, READ)
    hidden, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    kv_heads = count(config, "num_key_value_heads", heads)
    head_dim = count(config, "head_dim", hidden // heads)
    if heads % kv_heads or ("head_dim" not in config and hidden % heads):
        raise CheckpointError(
            "the heads do not divide evenly", got=f"hidden_size {hidden}, {heads} heads, {kv_heads} key-value heads"
        )
    vocab, positions = count(config, "vocab_size"), count(config, "max_position_embeddings", 2048)
    bos = token_ids(config, "bos_token_id", vocab)
    return DecoderConfig(
        family="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        layers=count(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=count(config, "intermediate_size"),
        norm_eps=_norm_eps(config),
        activation=_activation(config),
        tied_embeddings=flag(config, "tie_word_embeddings"),
        max_position=positions,
        rope=_rope(config, head_dim, positions),
        attention_bias=flag(config, "attention_bias"),
        mlp_bias=flag(config, "mlp_bias"),
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=token_ids(config, "eos_token_id", vocab),
    )


def tensor_names(config: DecoderConfig) -> dict[str, str]:
    """Canonical name -> name in a Hugging Face checkpoint."""
    return _expand(TENSORS, config)


def gguf_tensor_names(config: DecoderConfig) -> dict[str, str]:
    """Canonical name -> name in a GGUF file."""
    return _expand(GGUF_TENSORS, config)


def gguf_restore(config: DecoderConfig, name: str, values: np.ndarray) -> np.ndarray:
    """Undoes llama.cpp's order of rows in q_proj and k_proj.

    A head's rows are stored as 0, d/2, 1, d/2 + 1, ...: channel j beside the one it is rotated with, d being head_dim.
    """
    heads = {"q_proj": config.heads, "k_proj": config.kv_heads}.get(name.rpartition(".")[2])
    if heads is None:
        return values
    pairs = values.reshape(heads, config.head_dim // 2, 2, -1)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)


def _expand(table: Mapping[str, str], config: DecoderConfig) -> dict[str, str]:
    wanted = [*config.matrix_shapes(), *config.vector_shapes()]
    layers = [{k.format(i=i): v.format(i=i) for k, v in table.items() if "{i}" in k} for i in range(config.layers)]
    names = {k: v for part in (*layers, table) for k, v in part.items()}
    missing = [w for w in wanted if w not in names]
    if missing:
        raise CheckpointError("this kind of file cannot hold what the configuration asks for", got=missing[:5])
    return {w: names[w] for w in wanted}


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    if config.get("quantization_config"):
        raise CheckpointError(
            "the checkpoint is already quantized",
            got=repr(config["quantization_config"])[:120],
            wanted="weights in fp32, fp16 or bf16, or a GGUF file",
            hint="pass the original checkpoint",
        )
    architectures = config.get("architectures") or [ARCHITECTURE]
    if architectures != [ARCHITECTURE]:
        raise CheckpointError(
            "the checkpoint is not a language model of this family", got=architectures, wanted=ARCHITECTURE
        )
    if config.get("rope_interleaved"):
        raise CheckpointError("interleaved rotary embeddings are not supported", got="rope_interleaved=true")


def _norm_eps(config: Mapping[str, Any]) -> float:
    value = config.get("rms_norm_eps", 1e-6)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 or math.isnan(value):
        raise CheckpointError("the configuration's 'rms_norm_eps' is not usable", got=repr(value)[:80], wanted="0 to 1")
    return float(value)


def _activation(config: Mapping[str, Any]) -> Literal["silu", "gelu_tanh"]:
    value = config.get("hidden_act", "silu")
    if not isinstance(value, str) or value not in ACTIVATIONS:
        raise CheckpointError(
            "the activation is not supported",
            got=repr(value)[:80],
            wanted=f"hidden_act one of {', '.join(ACTIVATIONS)}",
        )
    return ACTIVATIONS[value]


def _rope(config: Mapping[str, Any], head_dim: int, positions: int) -> Rope:
    """rope_parameters of transformers 5, or rope_theta and rope_scaling of 4, with the precedence of transformers."""
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(given, Mapping):
        raise CheckpointError("the configuration's rope is not an object", got=repr(given)[:80])
    theta = config.get("rope_theta")
    return make_rope({"rope_theta": 10000.0 if theta is None else theta, **given}, head_dim, positions)


LLAMA = Family(
    name="llama",
    model_types=("llama",),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    gguf=GgufLayout(gguf_tensor_names, gguf_restore),
)
