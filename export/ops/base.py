"""The protocol between the decoder and the op sets that carry it out.

A value `T` is opaque to the decoder: a torch tensor, a MIL variable, an ONNX value. Its layout is the op set's own
business: (batch, sequence, channels) in torch and ONNX, (batch, channels, 1, sequence) for the Neural Engine.
Nothing here is peculiar to Core ML, ONNX or torch, so that a further target is one more op set.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np

from satchel.export.families.base import DecoderConfig
from satchel.export.palettize.tensors import Matrix

T = TypeVar("T")


class Weights(Protocol):
    """Where an op set finds its weights, by canonical name (see families/base.py). Reading is lazy."""

    def matrix(self, name: str) -> Matrix:
        """The compressed matrix of a linear or an embedding; KeyError if there is none."""
        ...

    def vector(self, name: str) -> np.ndarray:
        """A norm gain or a bias, fp32 [n]; KeyError if there is none."""
        ...

    def has(self, name: str) -> bool:
        """Whether a matrix or vector of this name exists."""
        ...


class OpSet(Protocol[T]):
    """What a decoder-only transformer is made of.

    Attributes:
        config: of the decoder, whose options say which of these are used and how.
    """

    config: DecoderConfig

    def embed(self, name: str) -> T:
        """Rows of the embedding matrix `name` for the token ids that this op set was given as input."""
        ...

    def norm(self, x: T, name: str) -> T:
        """Over the channels: RMSNorm with the gain `name`, or LayerNorm, which has a bias `<name>.bias` too if there is
        one."""
        ...

    def head_norm(self, x: T, name: str) -> T:
        """The same over each head of queries or keys, with one gain for all or one for each, and no bias."""
        ...

    def linears(self, x: T, names: list[str]) -> list[T]:
        """Linears over the same input, each with its bias `<name>.bias` if there is one; may be packed into one."""
        ...

    def attention(self, q: T, k: T, v: T, layer: int) -> T:
        """Rotary on q and k, writes k and v into the cache of `layer`, causal grouped-query attention, heads joined.

        `config.layer(layer)` says how many heads there are, how they are turned, and how far back a token sees. Of each
        head the first `rope.rotated` channels are rotated; none where there is no rope. The cache holds every token,
        also where a window shows only the last of them.
        """
        ...

    def gated(self, gate: T, up: T) -> T:
        """activation(gate) * up, with the activation of the configuration."""
        ...

    def activated(self, x: T) -> T:
        """The activation of the configuration, for an MLP without a gate."""
        ...

    def add(self, x: T, y: T) -> T:
        """The residual stream plus what is added to it, or the sum of parallel branches."""
        ...

    def scale(self, x: T, factor: float) -> T:
        """x times a number: what the embedding gives, in some models."""
        ...

    def lm_head(self, x: T, name: str) -> T:
        """Logits over the vocabulary, with `lm_head.bias` if there is one; `name` is the embedding's where tied.

        They are capped by `config.logits_softcap`.
        """
        ...
