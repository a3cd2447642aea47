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
    """One layer: attention and a gated MLP, each behind a norm and added to the residual stream."""
    p = f"layers.{layer}"
    h = ops.norm(x, f"{p}.input_layernorm")
    q, k, v = ops.linears(h, [f"{p}.self_attn.{n}_proj" for n in "qkv"])
    (attended,) = ops.linears(ops.attention(q, k, v, layer), [f"{p}.self_attn.o_proj"])
    x = ops.add(x, attended)
    h = ops.norm(x, f"{p}.post_attention_layernorm")
    gate, up = ops.linears(h, [f"{p}.mlp.gate_proj", f"{p}.mlp.up_proj"])
    (down,) = ops.linears(ops.gated(gate, up), [f"{p}.mlp.down_proj"])
    return ops.add(x, down)


def head(ops: OpSet[T], config: DecoderConfig, x: T) -> T:
    """The last norm and the logits."""
    return ops.lm_head(ops.norm(x, "norm"), "embed_tokens" if config.tied_embeddings else "lm_head")


def decoder(ops: OpSet[T], config: DecoderConfig) -> T:
    """Token ids -> logits, all layers."""
    x = embed(ops)
    for layer in range(config.layers):
        x = block(ops, x, layer)
    return head(ops, config, x)
