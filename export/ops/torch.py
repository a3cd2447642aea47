"""The op set over torch tensors: the eager check of the decoder, activation statistics, and what the Core ML delegate
of ExecuTorch exports.

Values are fp32 [batch, sequence, channels].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from satchel.export.decoder import decoder
from satchel.export.families.base import DecoderConfig, Layer, Rope
from satchel.export.ops.base import Weights
from satchel.runtime.errors import UsageError

OnLinear = Callable[[str, torch.Tensor], None]
"""Called with a linear's canonical name and its input, fp32 [batch, sequence, columns], before the product."""


class Rotary:
    """cos and sin of the rotary embedding, grown as positions ask for them."""

    def __init__(self, rope: Rope) -> None:
        self._inv_freq = torch.tensor(rope.inv_freq, dtype=torch.float32)
        self._factor = rope.attention_factor

    def at(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin), each fp32 [length, rotated], for positions start .. start + length."""
        angle = torch.arange(start, start + length, dtype=torch.float32)[:, None] * self._inv_freq
        angle = torch.cat((angle, angle), dim=-1)
        return angle.cos() * self._factor, angle.sin() * self._factor


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """[..., channels] -> the half-swapped vector whose first half is negated."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def rotate(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns the first channels of [..., head_dim], as many as the tables [sequence, rotated] have."""
    turned, rest = heads.tensor_split((cos.shape[-1],), dim=-1)
    turned = turned * cos + rotate_half(turned) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def visible(layer: Layer, places: torch.Tensor, length: int) -> torch.Tensor:
    """Which of `length` tokens in the cache those at `places` see, bool [queries, keys] or [heads, queries, keys]."""
    rows, columns = places[:, None], torch.arange(length)[None, :]
    mask = columns <= rows
    if layer.window:
        mask &= columns > rows - layer.window
    if layer.blocks:
        near = rows // layer.blocks.size - columns // layer.blocks.size < layer.blocks.local
        far = torch.from_numpy(layer.blocks.far_keys(layer.heads, length))[:, None]
        mask = mask & (near | far)
    return mask


class Cache:
    """Keys and values of every layer, [batch, kv_heads, positions, head_dim], longer with each call."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def append(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Adds k and v after what is there, and returns all of both."""
        if layer in self._layers:
            old_k, old_v = self._layers[layer]
            k, v = torch.cat((old_k, k), dim=2), torch.cat((old_v, v), dim=2)
        self._layers[layer] = (k, v)
        return k, v


class TorchOps:
    """An `OpSet` (export/ops/base.py) that computes at once.

    Args:
        config: the decoder's shape.
        weights: where matrices and vectors come from.
        on_linear: called with each linear's name and input; lm_head goes by "lm_head", tied or not.
        keep: whether dequantized matrices stay in memory; without it each is dequantized again at every use, so that
            only one is held at a time.
    """

    def __init__(
        self, config: DecoderConfig, weights: Weights, *, on_linear: OnLinear | None = None, keep: bool = True
    ) -> None:
        self.config = config
        self._weights = weights
        self._on_linear = on_linear
        self._keep = keep
        self._kept: dict[str, torch.Tensor] = {}
        self._rotaries: dict[Rope, Rotary] = {}
        self._ids = torch.zeros(1, 0, dtype=torch.int64)
        self._start = 0
        self._cache = Cache()

    def begin(self, ids: torch.Tensor, start: int, cache: Cache) -> None:
        """Sets what the next pass over the decoder reads: ids int64 [batch, sequence] at position `start`."""
        self._ids, self._start, self._cache = ids, start, cache

    def _matrix(self, name: str) -> torch.Tensor:
        if name in self._kept:
            return self._kept[name]
        matrix = torch.from_numpy(np.ascontiguousarray(self._weights.matrix(name).dequantize()))
        if self._keep:
            self._kept[name] = matrix
        return matrix

    def _vector(self, name: str) -> torch.Tensor:
        return torch.from_numpy(np.array(self._weights.vector(name), np.float32))  # a copy: files are mapped read-only

    def _linear(self, x: torch.Tensor, name: str, matrix: str) -> torch.Tensor:
        if self._on_linear is not None:
            self._on_linear(name, x)
        bias = self._vector(f"{name}.bias") if self._weights.has(f"{name}.bias") else None
        return F.linear(x, self._matrix(matrix), bias)

    def embed(self, name: str) -> torch.Tensor:
        """[batch, sequence, hidden]."""
        return F.embedding(self._ids, self._matrix(name))

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """RMSNorm or LayerNorm in fp32."""
        gain = self._vector(name)
        if self.config.norm == "layer":
            bias = self._vector(f"{name}.bias") if self._weights.has(f"{name}.bias") else None
            return F.layer_norm(x, gain.shape, gain, bias, self.config.norm_eps)
        return self._root_mean_square(x) * gain

    def head_norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """The same of each head, without a bias."""
        heads, gain = (
            x.unflatten(-1, (-1, self.config.head_dim)),
            self._vector(name).unflatten(0, (-1, self.config.head_dim)),
        )
        if self.config.norm == "layer":
            return (F.layer_norm(heads, heads.shape[-1:], None, None, self.config.norm_eps) * gain).flatten(-2)
        return (self._root_mean_square(heads) * gain).flatten(-2)

    def _root_mean_square(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.config.norm_eps)

    def linears(self, x: torch.Tensor, names: list[str]) -> list[torch.Tensor]:
        """One product a name."""
        return [self._linear(x, name, name) for name in names]

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, self.config.head_dim)).transpose(1, 2)

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int) -> torch.Tensor:
        """Causal attention over the cache; q and the result are [batch, sequence, heads * head_dim]."""
        options = self.config.layer(layer)
        queries, keys = (self._rotated(self._heads(x), options.rope) for x in (q, k))
        keys, values = self._cache.append(layer, keys, self._heads(v))
        mask = visible(options, torch.arange(q.shape[1]) + self._start, keys.shape[2])
        joined = self._attended(queries, keys, values, mask)
        return joined.transpose(1, 2).flatten(2)

    def _rotated(self, heads: torch.Tensor, rope: Rope | None) -> torch.Tensor:
        if rope is None:
            return heads
        if rope not in self._rotaries:
            self._rotaries[rope] = Rotary(rope)
        return rotate(heads, *self._rotaries[rope].at(self._start, heads.shape[2]))

    def _attended(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        cap, scale = self.config.attention_softcap, self.config.score_scale
        if not cap:
            return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=scale, enable_gqa=True)
        group = queries.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
        scores = cap * torch.tanh(queries @ keys.transpose(2, 3) * (scale / cap))
        return torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1) @ values

    def gated(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """activation(gate) * up, or what "gegelu" makes of both."""
        if self.config.activation == "gegelu":
            limit = self.config.gate_limit
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
            return gate * torch.sigmoid(1.702 * gate) * (up + 1)
        return self.activated(gate) * up

    def activated(self, x: torch.Tensor) -> torch.Tensor:
        """SiLU, or GELU in its tanh form."""
        return F.silu(x) if self.config.activation == "silu" else F.gelu(x, approximate="tanh")

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """x + y."""
        return x + y

    def scale(self, x: torch.Tensor, factor: float) -> torch.Tensor:
        """x * factor."""
        return x * factor

    def lm_head(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """[batch, sequence, vocab]."""
        logits, cap = self._linear(x, "lm_head", name), self.config.logits_softcap
        return cap * torch.tanh(logits / cap) if cap else logits


class TorchDecoder:
    """The decoder in eager torch, fp32: what every other lowering of the same weights is held against.

    Args:
        config, weights, on_linear, keep: as `TorchOps` has them.
    """

    def __init__(
        self, config: DecoderConfig, weights: Weights, *, on_linear: OnLinear | None = None, keep: bool = True
    ) -> None:
        self._ops = TorchOps(config, weights, on_linear=on_linear, keep=keep)
        self._config = config
        self.reset()

    def reset(self) -> None:
        """Empties the cache."""
        self._cache = Cache()
        self.position = 0

    def _forward(self, ids: torch.Tensor, start: int, cache: Cache) -> torch.Tensor:
        self._ops.begin(ids, start, cache)
        with torch.no_grad():
            return decoder(self._ops, self._config)

    def batch_logits(self, ids: torch.Tensor) -> torch.Tensor:
        """ids int64 [batch, sequence] -> logits fp32 [batch, sequence, vocab]; the cache is left alone."""
        return self._forward(ids, 0, Cache())

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits after every token of a sequence on its own, float32 [len(ids), vocab]; the cache is left alone."""
        return np.asarray(self.batch_logits(_row(ids))[0].numpy())

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        """Appends ids to the cache; float32 [vocab] after the last."""
        logits = self._forward(_row(ids), self.position, self._cache)
        self.position += len(ids)
        return np.asarray(logits[0, -1].numpy())

    def step(self, token: int) -> np.ndarray:
        """Appends one id to the cache; float32 [vocab]."""
        return self.prefill([token])


def _row(ids: Sequence[int]) -> torch.Tensor:
    if len(ids) == 0:
        raise UsageError("a sequence without tokens has no logits", got=0, wanted="one token at least")
    return torch.tensor([list(ids)], dtype=torch.int64)
