"""The reference of Phi-3-small, put together from transformers' parts.

A Granite model, which has the multipliers, with torch's LayerNorm in place of its norms, the gate of GPT-OSS's experts
(the same function, with its own limit), and masks that hide what blocks hide, by a rule that looks at single tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satchel.export.families.base import DecoderConfig, Place, Rope, Suppression
from satchel.export.families.llama import TENSORS as LLAMA
from satchel.export.families.options import expand

NORMS = ("layers.{i}.input_layernorm", "layers.{i}.post_attention_layernorm", "norm")
TENSORS = LLAMA | {f"{name}.bias": LLAMA[name].replace(".weight", ".bias") for name in NORMS}


def configuration(given: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """Of the Granite model."""
    return {
        "model_type": "granite", "architectures": ["GraniteForCausalLM"], "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "max_position_embeddings": config.max_position,
        "tie_word_embeddings": config.tied_embeddings, "attention_bias": True, "mlp_bias": True, "pad_token_id": None,
        "rope_parameters": _rope(given, config), "embedding_multiplier": config.embedding_scale,
        "logits_scaling": 1 / config.logits_scale, "attention_multiplier": config.score_scale,
    }  # fmt: skip


def _rope(given: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    theta = float(given.get("rope_embedding_base") or 1e6)
    if config.rope.kind == "linear":
        return {"rope_type": "linear", "factor": float(given["rope_position_scale"]), "rope_theta": theta}
    if not config.rope.long_inv_freq:
        return {"rope_type": "default", "rope_theta": theta}
    factors = {k: given["rope_scaling"][k] for k in ("short_factor", "long_factor")}
    original = {"original_max_position_embeddings": config.rope.switch}
    return {"rope_type": "longrope", "rope_theta": theta, **factors, **original}


def layer(config: DecoderConfig, i: int) -> dict[str, Any]:
    """Layers differ in their masks alone."""
    return {}


def tensor_names(config: DecoderConfig) -> dict[str, Place]:
    """Among the parameters of that model; the bias of the head is no parameter of it."""
    return {name: place for name, place in expand({**TENSORS, "lm_head.bias": ""}, config).items() if place}


def adapt(model: Any, config: DecoderConfig) -> None:
    """Exchanges norms and MLPs, and hooks masks, LongRoPE and the ids that are never said in."""
    import torch

    norms = [name for name, module in model.named_modules() if type(module).__name__ == "GraniteRMSNorm"]
    for name in norms:
        model.set_submodule(name, torch.nn.LayerNorm(config.hidden_size, config.norm_eps))
    for i, block in enumerate(model.model.layers):
        block.mlp.forward = _mlp(block.mlp, config)
        if config.layer(i).blocks:
            block.self_attn.register_forward_pre_hook(_masked(config, i), with_kwargs=True)
    if config.suppressed_ids:
        model.register_forward_hook(_never_said(config))
    if config.rope.long_inv_freq:
        rotary = model.model.rotary_emb
        rotary.forward = _with_scales(rotary, config.rope)


def _mlp(mlp: Any, config: DecoderConfig) -> Any:
    """down(gate of GPT-OSS (gate, up in turn))."""
    import torch
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts

    class Gate:
        limit, alpha = config.gate_limit, 1.702

    def forward(x: Any) -> Any:
        in_turn = torch.stack((mlp.gate_proj(x), mlp.up_proj(x)), -1).flatten(-2)
        return mlp.down_proj(GptOssExperts._apply_gate(Gate, in_turn))  # type: ignore[arg-type]

    return forward


def _masked(config: DecoderConfig, i: int) -> Any:
    """Adds to the mask of a layer's attention what each of its heads does not see."""
    import torch

    layer = config.layer(i)
    blocks = layer.blocks
    assert blocks
    shift = 0 if blocks.alike else max(1, blocks.stride // layer.heads)

    def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        queries = kwargs["position_ids"][:, None, :, None]
        past, length = kwargs.get("past_key_values"), queries.shape[2]
        total = length + (past.get_seq_length(i) if past is not None else 0)
        # Left-padded prompts: slot s of a row has the position that its last token has, less the slots after it.
        keys = queries[:, :, -1:, :] - torch.arange(total - 1, -1, -1)
        mine, theirs = queries // blocks.size, keys // blocks.size
        head = torch.arange(layer.heads)[None, :, None, None]
        seen = (mine - theirs < blocks.local) | ((theirs + head * shift + 1) % blocks.stride == 0)
        seen = seen & (keys <= queries)
        seen = seen | (torch.arange(total) == torch.arange(total - length, total)[:, None])  # padding sees itself
        hidden = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        given = kwargs.get("attention_mask")
        if given is not None and given.dtype == torch.bool:
            given = torch.zeros(given.shape).masked_fill(~given, torch.finfo(torch.float32).min)
        kwargs["attention_mask"] = hidden if given is None else torch.minimum(hidden, given)
        return args, kwargs

    return hook


def _never_said(config: DecoderConfig) -> Any:
    import torch

    bias = torch.from_numpy(Suppression(config.suppressed_ids).values(config.vocab_size))

    def hook(module: Any, args: Any, out: Any) -> Any:
        out.logits = out.logits + bias
        return out

    return hook


def _with_scales(rotary: Any, rope: Rope) -> Any:
    """transformers' LongRoPE, whose cos and sin are scaled on each side of the switch by a number of its own."""
    of_class = type(rotary).forward

    def forward(x: Any, position_ids: Any) -> tuple[Any, Any]:
        rotary.attention_scaling = rope.at_context(int(position_ids.max()) + 1).attention_factor
        turned: tuple[Any, Any] = of_class(rotary, x, position_ids)
        return turned

    return forward
