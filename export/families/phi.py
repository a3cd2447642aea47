"""The Phi family: Phi-1, Phi-1.5 and Phi-2 (model_type "phi"; llama.cpp calls it "phi2").

Special about it: attention and MLP are parallel behind one LayerNorm, everything has a bias, the MLP has no gate, and
only the first channels of a head are rotated. llama.cpp keeps the order of rows, but files from before the model came
to transformers hold q, k and v as one tensor.

Phi-2's scores overflow fp16 when queries meet keys before the scaling by 1 / sqrt(head_dim). Our fp16 programs scale
the queries first (ops/mil.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Place, Rows
from satchel.export.families.options import (
    activation,
    count,
    epsilon,
    expand,
    flag,
    fused_qkv,
    refuse_unknown,
    refuse_unsupported,
    rope_parameters,
    token_ids,
)
from satchel.export.rope import partial_rope
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "PhiForCausalLM"

READ = (
    "model_type", "architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "hidden_act", "max_position_embeddings", "layer_norm_eps",
    "rope_theta", "rope_scaling", "rope_parameters", "partial_rotary_factor", "tie_word_embeddings", "bos_token_id",
    "eos_token_id", "embd_pdrop", "resid_pdrop",
)  # fmt: skip
"""Options that are carried out, or checked, or only matter in training."""

LINEARS = {
    "self_attn.q_proj": "self_attn.q_proj",
    "self_attn.k_proj": "self_attn.k_proj",
    "self_attn.v_proj": "self_attn.v_proj",
    "self_attn.o_proj": "self_attn.dense",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
    "input_layernorm": "input_layernorm",
}
"""Of a layer, norm included, each with a weight and a bias: canonical name -> transformers' name."""

GGUF_LINEARS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
}


def _table(layers: Mapping[str, str], layer: str, norm: str, head: str, embedding: str) -> dict[str, str]:
    """Canonical name -> stored name, with {i} for the layer."""
    pairs = {f"layers.{{i}}.{k}": f"{layer}.{v}" for k, v in layers.items()} | {"norm": norm, "lm_head": head}
    both = {k: f"{v}.weight" for k, v in pairs.items()} | {f"{k}.bias": f"{v}.bias" for k, v in pairs.items()}
    return {"embed_tokens": embedding, **both}


TENSORS = _table(LINEARS, "model.layers.{i}", "model.final_layernorm", "lm_head", "model.embed_tokens.weight")
GGUF_TENSORS = _table(GGUF_LINEARS, "blk.{i}", "output_norm", "output", "token_embd.weight")


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of transformers' PhiConfig.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)  # qk_layernorm among them, where it is set: no published Phi has it
    hidden, heads = count(config, "hidden_size"), count(config, "num_attention_heads")
    kv_heads = count(config, "num_key_value_heads", heads)
    if heads % kv_heads or hidden % heads:
        raise CheckpointError(
            "the heads do not divide evenly", got=f"hidden_size {hidden}, {heads} heads, {kv_heads} key-value heads"
        )
    vocab, positions = count(config, "vocab_size"), count(config, "max_position_embeddings", 2048)
    bos = token_ids(config, "bos_token_id", vocab)
    if flag(config, "tie_word_embeddings"):
        raise CheckpointError("a Phi whose head is tied is not supported", got="tie_word_embeddings=true")
    return DecoderConfig(
        family="phi",
        vocab_size=vocab,
        hidden_size=hidden,
        layers=count(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=hidden // heads,
        intermediate_size=count(config, "intermediate_size"),
        norm_eps=epsilon(config, "layer_norm_eps", 1e-5),
        activation=activation(config, "gelu_new"),
        tied_embeddings=False,
        max_position=positions,
        rope=partial_rope(_rope(config), hidden // heads, positions, 0.5),
        attention_bias=True,
        mlp_bias=True,
        head_bias=True,
        norm="layer",
        parallel=True,
        gated=False,
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=token_ids(config, "eos_token_id", vocab),
    )


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    share = {"partial_rotary_factor": config["partial_rotary_factor"]} if "partial_rotary_factor" in config else {}
    return {**share, **rope_parameters(config)}


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Canonical name -> name in a Hugging Face checkpoint."""
    return expand(TENSORS, config)


def gguf_tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Canonical name -> name in a GGUF file."""
    return expand(GGUF_TENSORS, config)


def gguf_fused(config: DecoderConfig) -> dict[str, Rows]:
    """Where q, k and v are in a file that holds them as one."""
    return fused_qkv(config, "blk.{i}.attn_qkv")


def hugging_face(config: Mapping[str, Any]) -> dict[str, Any]:
    """A GGUF file's configuration for transformers, which does not read GGUF files of this family itself."""
    return {"hidden_act": "gelu_new", **config, "model_type": "phi", "architectures": [ARCHITECTURE]}


PHI = Family(
    name="phi",
    model_types=("phi", "phi2"),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    gguf=GgufLayout(gguf_tensor_names, fused=gguf_fused, hugging_face=hugging_face),
)
