"""What a configuration makes use of, in words: for the list of families, and for the test that holds it to their cases.

Every word stands for a structural option of DecoderConfig; what all models of this kind have (causal attention with a
cache, rotary embedding, RMSNorm before attention and a gated MLP) has none.
"""

from __future__ import annotations

from collections.abc import Callable

from satchel.export.families.base import DecoderConfig

FEATURES: dict[str, Callable[[DecoderConfig], bool]] = {
    "grouped queries": lambda c: any(layer.group > 1 for layer in c.each_layer()),
    "heads of a width of their own": lambda c: any(x.heads * c.head_dim != c.hidden_size for x in c.each_layer()),
    "layers of different sizes": lambda c: len({(x.heads, x.intermediate_size) for x in c.each_layer()}) > 1,
    "tied head": lambda c: c.tied_embeddings,
    "biases of q, k and v": lambda c: c.qkv_bias or c.attention_bias,
    "bias behind attention": lambda c: c.attention_bias,
    "biases of the MLP": lambda c: c.mlp_bias,
    "bias of the head": lambda c: c.head_bias,
    "LayerNorm": lambda c: c.norm == "layer",
    "norms of queries and keys": lambda c: bool(c.qk_norm),
    "norms behind attention and MLP": lambda c: c.post_norm,
    "no norms before attention and MLP": lambda c: not c.pre_norm,
    "attention beside the MLP": lambda c: c.parallel,
    "MLP without a gate": lambda c: not c.gated,
    "gate with limits": lambda c: c.gate_limit > 0,
    "window": lambda c: any(layer.window for layer in c.each_layer()),
    "layers with and without a window": lambda c: len({bool(layer.window) for layer in c.each_layer()}) > 1,
    "block-sparse attention": lambda c: any(layer.blocks for layer in c.each_layer()),
    "layers with and without blocks": lambda c: len({bool(layer.blocks) for layer in c.each_layer()}) > 1,
    "layers without rotary": lambda c: any(layer.rope is None for layer in c.each_layer()),
    "partial rotary": lambda c: any(rope.rotated < c.head_dim for rope in c.ropes()),
    "ropes that differ by layer": lambda c: len(c.ropes()) > 1,
    "scaled embedding": lambda c: c.embedding_scale != 1,
    "scores scaled by a number": lambda c: c.attention_scale is not None,
    "scaled residuals": lambda c: c.residual_scale != 1,
    "scaled logits": lambda c: c.logits_scale != 1,
    "capped scores": lambda c: c.attention_softcap > 0,
    "capped logits": lambda c: c.logits_softcap > 0,
    "ids that are never said": lambda c: bool(c.suppressed_ids),
}
"""Word -> whether a configuration has it."""


def features(config: DecoderConfig) -> set[str]:
    """The words for a configuration, with one for each kind of rope but the plain one, such as "rope llama3"."""
    ropes = {f"rope {rope.kind}" for rope in config.ropes() if rope.kind != "default"}
    return {word for word, has in FEATURES.items() if has(config)} | ropes
