"""The Phi family: Phi-1, Phi-1.5 and Phi-2 (model_type "phi"; llama.cpp calls it "phi2").

Special about it: attention and MLP are parallel behind one LayerNorm, everything has a bias, the MLP has no gate, and
only the first channels of a head are rotated. llama.cpp keeps the order of rows, but files from before the model came
to transformers hold q, k and v as one tensor.

Phi-2's scores overflow fp16 when queries meet keys before the scaling by 1 / sqrt(head_dim). Our fp16 programs scale
the queries first (ops/mil.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from satchel.export.families.base import DecoderConfig, Family, GgufLayout, Place, Rows
from satchel.export.families.options import expand, flag, fused_qkv
from satchel.export.families.standard import standard_config
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "PhiForCausalLM"

READ = ("layer_norm_eps", "partial_rotary_factor", "embd_pdrop", "resid_pdrop")
"""Besides what all families read; qk_layernorm is not among them, since no published Phi has it."""

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
    if flag(config, "tie_word_embeddings"):
        raise CheckpointError("a Phi whose head is tied is not supported", got="tie_word_embeddings=true")
    eps = ("layer_norm_eps", 1e-5)
    return replace(
        standard_config(config, ARCHITECTURE, READ, positions=2048, eps=eps, act="gelu_new", rotated=0.5),
        family="phi",
        attention_bias=True,
        mlp_bias=True,
        head_bias=True,
        norm="layer",
        parallel=True,
        gated=False,
    )


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
    published=("microsoft/phi-1", "microsoft/phi-1_5", "microsoft/phi-2"),
    always=(
        "biases of q, k and v", "bias behind attention", "biases of the MLP", "bias of the head", "LayerNorm",
        "attention beside the MLP", "MLP without a gate",
    ),
    options=("grouped queries", "partial rotary"),
)  # fmt: skip
