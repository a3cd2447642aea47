"""The decoder, written once: what a decoder-only transformer does, over any op set.

It is cut in three (`embed`, `block`, `head`) so that a format may lower one block and repeat it.
"""

from __future__ import annotations

from typing import TypeVar

from satchel.export.families.base import DecoderConfig
from satchel.export.ops.base import OpSet

T = TypeVar("T")


def embed(ops: OpSet[T]) -> T:
    """Token ids -> the residual stream."""
    return _scaled(ops, ops.embed("embed_tokens"), ops.config.embedding_scale)


def block(ops: OpSet[T], x: T, layer: int) -> T:
    """One layer: attention and an MLP added to the residual stream, one after the other, or both behind one norm."""
    config, p = ops.config, f"layers.{layer}"
    h = _before(ops, x, f"{p}.input_layernorm")
    attended = _added(ops, attention(ops, h, layer), f"{p}.attention_output_layernorm")
    if config.parallel:
        return ops.add(x, ops.add(attended, _scaled(ops, mlp(ops, h, layer), config.residual_scale)))
    x = ops.add(x, attended)
    h = _before(ops, x, f"{p}.post_attention_layernorm")
    return ops.add(x, _added(ops, mlp(ops, h, layer), f"{p}.mlp_output_layernorm"))


def _before(ops: OpSet[T], x: T, name: str) -> T:
    return ops.norm(x, name) if ops.config.pre_norm else x


def _added(ops: OpSet[T], x: T, name: str) -> T:
    """What attention or the MLP adds to the residual stream."""
    return _scaled(ops, ops.norm(x, name) if ops.config.post_norm else x, ops.config.residual_scale)


def _scaled(ops: OpSet[T], x: T, factor: float) -> T:
    return x if factor == 1 else ops.scale(x, factor)


def attention(ops: OpSet[T], h: T, layer: int) -> T:
    """Attention and its projections."""
    p, norm = f"layers.{layer}.self_attn", ops.config.qk_norm
    q, k, v = ops.linears(h, [f"{p}.{n}_proj" for n in "qkv"])
    if norm:
        normed = ops.norm if norm == "width" else ops.head_norm
        q, k = normed(q, f"{p}.q_norm"), normed(k, f"{p}.k_norm")
    (attended,) = ops.linears(ops.attention(q, k, v, layer), [f"{p}.o_proj"])
    return attended


def mlp(ops: OpSet[T], h: T, layer: int) -> T:
    """The feed-forward part, with a gate or without."""
    p = f"layers.{layer}.mlp"
    if ops.config.gated:
        gate, up = ops.linears(h, [f"{p}.gate_proj", f"{p}.up_proj"])
        inner = ops.gated(gate, up)
    else:
        (up,) = ops.linears(h, [f"{p}.up_proj"])
        inner = ops.activated(up)
    (down,) = ops.linears(inner, [f"{p}.down_proj"])
    return down


def head(ops: OpSet[T], config: DecoderConfig, x: T) -> T:
    """The last norm and the logits."""
    normed = _scaled(ops, ops.norm(x, "norm"), config.logits_scale)
    return ops.lm_head(normed, "embed_tokens" if config.tied_embeddings else "lm_head")


def decoder(ops: OpSet[T], config: DecoderConfig) -> T:
    """Token ids -> logits, all layers."""
    x = embed(ops)
    for layer in range(config.layers):
        x = block(ops, x, layer)
    return head(ops, config, x)
