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
    return ops.embed("embed_tokens")


def block(ops: OpSet[T], x: T, layer: int) -> T:
    """One layer: attention and an MLP, each behind a norm and added to the residual stream; or both behind one norm."""
    config, p = ops.config, f"layers.{layer}"
    h = ops.norm(x, f"{p}.input_layernorm")
    attended = attention(ops, h, layer)
    if config.parallel:
        return ops.add(x, ops.add(attended, mlp(ops, h, layer)))
    x = ops.add(x, attended)
    return ops.add(x, mlp(ops, ops.norm(x, f"{p}.post_attention_layernorm"), layer))


def attention(ops: OpSet[T], h: T, layer: int) -> T:
    """Attention and its projections."""
    p = f"layers.{layer}.self_attn"
    q, k, v = ops.linears(h, [f"{p}.{n}_proj" for n in "qkv"])
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
    return ops.lm_head(ops.norm(x, "norm"), "embed_tokens" if config.tied_embeddings else "lm_head")


def decoder(ops: OpSet[T], config: DecoderConfig) -> T:
    """Token ids -> logits, all layers."""
    x = embed(ops)
    for layer in range(config.layers):
        x = block(ops, x, layer)
    return head(ops, config, x)
