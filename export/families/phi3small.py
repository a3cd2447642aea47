"""Phi-3-small 7B, 8k and 128k: block-sparse attention, muP multipliers, a gated GELU with limits.

Special about it: all but every second layer see the last blocks of tokens and a few before them (blocks.py); q, k and v
of each group of heads are stored one after the other, the rows of gate and up in turn; embedding, scores and logits
have multipliers; ids that the tokenizer never gives are never said. transformers does not have it: the reference is
put together from transformers' parts (phi3small_reference.py), and a test holds that against the ONNX model that
Microsoft's onnxruntime-genai builds, with onnxruntime's own SparseAttention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from satchel.export.families import phi3small_reference
from satchel.export.families.base import DecoderConfig, Family, Layer, Place, Rope, Runs, Stand, Suppression
from satchel.export.families.blocks import Blocks
from satchel.export.families.options import (
    common,
    count,
    epsilon,
    expand,
    flag,
    heads,
    positive,
    refuse_unknown,
    refuse_unsupported,
    refuse_values,
    token_ids,
)
from satchel.export.rope import make_rope
from satchel.runtime.errors import CheckpointError

ARCHITECTURE = "Phi3SmallForCausalLM"

READ = (
    "model_type", "architectures", "auto_map", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "ff_intermediate_size", "ff_dim_multiplier", "hidden_act", "gegelu_limit",
    "gegelu_pad_to_256", "max_position_embeddings", "original_max_position_embeddings", "layer_norm_epsilon",
    "rope_embedding_base", "rope_position_scale", "rope_scaling", "blocksparse_homo_head_pattern",
    "blocksparse_block_size", "blocksparse_num_local_blocks", "blocksparse_vert_stride",
    "blocksparse_triton_kernel_block_size", "dense_attention_every_n_layers", "mup_use_scaling",
    "mup_width_multiplier", "mup_embedding_multiplier", "mup_attn_multiplier", "dummy_token_indices",
    "tie_word_embeddings", "bos_token_id", "eos_token_id", "embedding_dropout_prob", "attention_dropout_prob",
    "ffn_dropout_prob", "reorder_and_upcast_attn", "pad_sequence_to_multiple_of_64",
)  # fmt: skip
"""Options that are carried out, or checked, or say how training and other kernels compute the same."""

MSCALES = ("short_mscale", "long_mscale")
"""What cos and sin are multiplied by on each side of the switch."""

LINEARS = {
    "layers.{i}.self_attn.o_proj": "model.layers.{i}.self_attn.dense",
    "layers.{i}.mlp.down_proj": "model.layers.{i}.mlp.down_proj",
    "layers.{i}.input_layernorm": "model.layers.{i}.input_layernorm",
    "layers.{i}.post_attention_layernorm": "model.layers.{i}.post_attention_layernorm",
    "norm": "model.final_layernorm",
}
"""And norms, each with a weight and a bias."""
TENSORS = {
    "embed_tokens": "model.embed_tokens.weight",
    "lm_head": "lm_head.weight",
    **{k: f"{v}.weight" for k, v in LINEARS.items()},
    **{f"{k}.bias": f"{v}.bias" for k, v in LINEARS.items()},
}


def configure(config: Mapping[str, Any]) -> DecoderConfig:
    """A Hugging Face configuration -> ours. Defaults are those of the published configuration class.

    Raises:
        CheckpointError: an option is unknown, unsupported or out of range; it is named.
    """
    refuse_unsupported(config, ARCHITECTURE)
    refuse_unknown(config, READ)
    refuse_values(config, {"hidden_act": "gegelu"})
    split, positions = heads(config, kv_default=8), count(config, "max_position_embeddings", 8192)
    fields = common({**config, "intermediate_size": _intermediate(config)})
    rope, scores = _rope(config, split.head_dim, positions), positive(config, "mup_attn_multiplier", 1.0)
    sparse = _sparse_layers(config, fields["layers"])
    layers = [Layer(*split[:2], fields["intermediate_size"], rope, blocks=blocks) for blocks in sparse]
    return DecoderConfig(
        **fields,
        **split._asdict(),
        family="phi3small",
        norm_eps=epsilon(config, "layer_norm_epsilon", 1e-5),
        activation="gegelu",
        gate_limit=positive(config, "gegelu_limit", 20.0),
        tied_embeddings=flag(config, "tie_word_embeddings", True),
        max_position=positions,
        rope=rope,
        layer_options=tuple(layers) if any(sparse) else (),
        attention_bias=True,
        mlp_bias=True,
        norm="layer",
        embedding_scale=positive(config, "mup_embedding_multiplier", 10.0),
        logits_scale=1 / positive(config, "mup_width_multiplier", 8.0),
        attention_scale=scores / split.head_dim if flag(config, "mup_use_scaling", True) else None,
        suppressed_ids=tuple(sorted(set(token_ids(config, "dummy_token_indices", fields["vocab_size"])))),
    )


def _intermediate(config: Mapping[str, Any]) -> int:
    """As it is stated, or two thirds of a multiple of the hidden size, by default rounded up to a multiple of 256."""
    if config.get("ff_intermediate_size") is not None:
        return count({"intermediate_size": config["ff_intermediate_size"]}, "intermediate_size")
    size = int(config.get("ff_dim_multiplier") or 4) * (count(config, "hidden_size") // 3) * 2
    return -(-size // 256) * 256 if flag(config, "gegelu_pad_to_256", True) else size


def _sparse_layers(config: Mapping[str, Any], layers: int) -> list[Blocks | None]:
    """For each layer its blocks; None for every `dense_attention_every_n_layers`-th, which sees all."""
    size = count(config, "blocksparse_block_size", 64)
    local, stride = count(config, "blocksparse_num_local_blocks", 16), count(config, "blocksparse_vert_stride", 8)
    every = config.get("dense_attention_every_n_layers") or 0
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise CheckpointError(
            "the configuration's 'dense_attention_every_n_layers' is not usable", got=every, wanted="0 or more"
        )
    blocks = Blocks(size, local, stride, flag(config, "blocksparse_homo_head_pattern"))
    return [None if every and (i + 1) % every == 0 else blocks for i in range(layers)]


def _rope(config: Mapping[str, Any], head_dim: int, positions: int) -> Rope:
    """LongRoPE of the 128k models has a scale of cos and sin of its own on each side of the switch."""
    given = {"rope_theta": positive(config, "rope_embedding_base", 1e6)}
    scaling, squeezed = config.get("rope_scaling"), positive(config, "rope_position_scale", 1.0)
    if scaling is None:
        linear = {"rope_type": "linear", "factor": squeezed} if squeezed != 1 else {}
        return make_rope(given | linear, head_dim, positions)
    if not isinstance(scaling, Mapping) or squeezed != 1:
        raise CheckpointError("the configuration's rope is not supported", got=f"{scaling}, {squeezed}"[:120])
    kind = scaling.get("rope_type", scaling.get("type"))
    rest = {k: v for k, v in scaling.items() if k not in ("type", *MSCALES)}
    rope = make_rope({**given, **rest, "rope_type": "longrope" if kind == "su" else kind}, head_dim, positions)
    short, long = (positive(scaling, key, rope.attention_factor) for key in MSCALES)
    return replace(rope, attention_factor=short, long_attention_factor=long)


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Where a Hugging Face checkpoint has each tensor."""
    places: dict[str, Place] = {"lm_head.bias": Suppression(config.suppressed_ids)}
    for i in range(config.layers):
        for part, stored in _interleaved(config, i).items():
            for kind, ending in (("", "weight"), (".bias", "bias")):
                name, start, length, step, number = stored
                places[f"layers.{i}.{part}{kind}"] = Runs(f"{name}.{ending}", start, length, step, number)
    return expand(TENSORS, config, places)


def _interleaved(config: DecoderConfig, i: int) -> dict[str, tuple[str, int, int, int, int]]:
    """The queries of a group of heads, their key and their value, and so on for each group; and gate, up, gate, up."""
    layer, dim, p = config.layer(i), config.head_dim, f"model.layers.{i}"
    step, fused, up = (layer.group + 2) * dim, f"{p}.self_attn.query_key_value", f"{p}.mlp.up_proj"
    return {
        "self_attn.q_proj": (fused, 0, layer.group * dim, step, layer.kv_heads),
        "self_attn.k_proj": (fused, layer.group * dim, dim, step, layer.kv_heads),
        "self_attn.v_proj": (fused, (layer.group + 1) * dim, dim, step, layer.kv_heads),
        "mlp.gate_proj": (up, 0, 1, 2, layer.intermediate_size),
        "mlp.up_proj": (up, 1, 1, 2, layer.intermediate_size),
    }


PHI3SMALL = Family(
    name="phi3small",
    model_types=("phi3small",),
    configure=configure,
    tensor_names=tensor_names,
    ignored=("rotary_emb.inv_freq",),
    tied_head="lm_head.weight",
    stand=Stand(
        phi3small_reference.configuration,
        phi3small_reference.layer,
        phi3small_reference.tensor_names,
        phi3small_reference.adapt,
    ),
    published=("microsoft/Phi-3-small-8k-instruct", "microsoft/Phi-3-small-128k-instruct"),
    always=(
        "LayerNorm", "biases of q, k and v", "bias behind attention", "biases of the MLP", "gate with limits",
    ),
    options=(
        "grouped queries", "tied head", "block-sparse attention", "layers with and without blocks", "rope linear",
        "rope longrope", "scores scaled by a number", "scaled embedding", "scaled logits", "ids that are never said",
    ),
    checked="a Granite of transformers' with LayerNorms, the gate of GPT-OSS and masks, and onnxruntime-genai's model",
)  # fmt: skip
