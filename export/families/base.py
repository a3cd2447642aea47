"""What a family of decoder-only transformers says about itself, in terms that every later stage uses.

Canonical tensor names, which the rest of Satchel knows (`{i}` is the layer's number):

    embed_tokens                                   [vocab, hidden]
    layers.{i}.input_layernorm                     [hidden]                 norm before attention
    layers.{i}.self_attn.q_proj                    [heads * head_dim, hidden]
    layers.{i}.self_attn.k_proj, .v_proj           [kv_heads * head_dim, hidden]
    layers.{i}.self_attn.q_norm, .k_norm           [see qk_norm]            norms of queries and keys
    layers.{i}.self_attn.o_proj                    [hidden, heads * head_dim]
    layers.{i}.attention_output_layernorm          [hidden]                 norm of what attention adds
    layers.{i}.post_attention_layernorm            [hidden]                 norm before the MLP
    layers.{i}.mlp.gate_proj, .up_proj             [intermediate, hidden]   gate_proj: gated MLPs only
    layers.{i}.mlp.down_proj                       [hidden, intermediate]
    layers.{i}.mlp_output_layernorm                [hidden]                 norm of what the MLP adds
    norm                                           [hidden]                 the last norm
    lm_head                                        [vocab, hidden]          absent when tied to embed_tokens

A norm is its gain; a bias of a linear or a LayerNorm has its name and `.bias`. Where attention and MLP are parallel,
both read input_layernorm, and there is no post_attention_layernorm. Most models have norms only before attention and
MLP, some only behind them, some both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from satchel.export.families.blocks import Blocks

Activation = Literal["silu", "gelu_tanh", "gegelu"]

SUPPRESSED = -1e4
"""What is added to the logit of an id that must not be said; fp16 holds it."""


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, rotate-half convention (of what is rotated, the first half pairs with the second).

    Attributes:
        inv_freq: `rotated / 2` inverse frequencies in radians a position, after any scaling of the checkpoint.
        attention_factor: multiplies cos and sin (1.0 but for YaRN and LongRoPE).
        long_inv_freq: as inv_freq, for a context of more than `switch` tokens; () where there is no such switch.
        switch: the context that inv_freq is for at the most.
        long_attention_factor: as attention_factor, for such a context; None for the same.
        kind: rope_type, as transformers calls the scaling.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    long_inv_freq: tuple[float, ...] = ()
    switch: int = 0
    long_attention_factor: float | None = None
    kind: str = field(default="default", compare=False)

    def at_context(self, context: int) -> Rope:
        """What a model has whose cache holds `context` tokens.

        transformers takes the long frequencies for a sequence as soon as it is longer than `switch`, and leaves keys
        that are in the cache as they were turned before. Tables of an exported model are constants, so here the length
        of its cache decides, for every token: up to `switch` the short frequencies, beyond it the long ones.
        """
        if not self.long_inv_freq:
            return self
        if context <= self.switch:
            return Rope(self.inv_freq, self.attention_factor, kind=self.kind)
        own = self.long_attention_factor
        return Rope(self.long_inv_freq, self.attention_factor if own is None else own, kind=self.kind)

    @property
    def rotated(self) -> int:
        """How many channels of a head are rotated, the first ones; the others pass as they are."""
        return 2 * len(self.inv_freq)


@dataclass(frozen=True)
class Layer:
    """What the layers of one model may differ in.

    Attributes:
        heads, kv_heads, intermediate_size: counts.
        rope: None for a layer that does not rotate.
        window: how many tokens a token sees, itself included; 0 for all before it.
        blocks: which blocks of tokens a token sees; None for all before it.
    """

    heads: int
    kv_heads: int
    intermediate_size: int
    rope: Rope | None
    window: int = 0
    blocks: Blocks | None = None

    @property
    def group(self) -> int:
        """Query heads to a key/value head."""
        return self.heads // self.kv_heads

    def windowed(self, context: int) -> int:
        """The window, 0 where a cache of `context` tokens lies within it."""
        return self.window if self.window < context else 0

    def blocked(self, context: int) -> Blocks | None:
        """The blocks, None where all of a cache of `context` tokens is local to every token."""
        return self.blocks if self.blocks and self.blocks.reach < context else None


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder and what is special about it.

    Attributes:
        family: the `model_type` it was read from, such as "llama".
        vocab_size, hidden_size, layers, heads, kv_heads, head_dim, intermediate_size: counts; where layers differ,
            the most of any.
        norm_eps: epsilon of the norms.
        activation: of the gate, or between up and down where there is no gate: "silu"; "gelu_tanh"; or "gegelu", which
            is x * sigmoid(1.702 x) of a gate, times (up + 1), with `gate_limit`.
        tied_embeddings: whether lm_head is embed_tokens.
        max_position: the context length that the model was trained for, in tokens.
        rope: rotary embedding of every layer that `layer_options` says nothing about.
        attention_bias, mlp_bias, head_bias: whether the linears have biases.
        qkv_bias: whether q, k and v have biases, and o_proj none.
        norm: "rms" (RMSNorm, a gain only) or "layer" (LayerNorm, a gain and a bias).
        parallel: attention and MLP read the same norm, and their results are added to the residual stream together.
        gated: whether the MLP has a gate: down(act(gate(x)) * up(x)) instead of down(act(up(x))).
        window: of every layer that `layer_options` says nothing about, as Layer has it.
        layer_options: for each layer; () where all are alike.
        qk_norm: norms of queries and keys before they are rotated, of the kind of `norm` but without a bias: "" none;
            "head" over each head, one gain [head_dim] for all; "heads" over each head, a gain for each
            [heads * head_dim]; "width" over all heads together [heads * head_dim].
        pre_norm: whether attention and MLP have norms before them.
        post_norm: whether what they add is normed.
        embedding_scale: multiplies what the embedding gives, not a tied head.
        residual_scale: multiplies what attention and MLP add.
        logits_scale: multiplies the logits.
        gate_limit: of "gegelu": the gate is at most that, and up between it and its negative.
        suppressed_ids: ids that are never said: SUPPRESSED is added to their logits.
        attention_scale: multiplies the scores; None for 1 / sqrt(head_dim).
        attention_softcap, logits_softcap: scores or logits x become cap * tanh(x / cap); 0 for none.
        bos_token_id, eos_token_ids: as the checkpoint's configuration says; stop ids may be added by the tokenizer.
    """

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    norm_eps: float
    activation: Activation
    tied_embeddings: bool
    max_position: int
    rope: Rope
    attention_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    norm: Literal["rms", "layer"] = "rms"
    parallel: bool = False
    gated: bool = True
    qkv_bias: bool = False
    window: int = 0
    layer_options: tuple[Layer, ...] = ()
    qk_norm: Literal["", "head", "heads", "width"] = ""
    pre_norm: bool = True
    post_norm: bool = False
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logits_scale: float = 1.0
    gate_limit: float = 0.0
    suppressed_ids: tuple[int, ...] = ()
    attention_scale: float | None = None
    attention_softcap: float = 0.0
    logits_softcap: float = 0.0
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def layer(self, i: int) -> Layer:
        """What is particular to a layer."""
        if self.layer_options:
            return self.layer_options[i]
        return Layer(self.heads, self.kv_heads, self.intermediate_size, self.rope, self.window)

    def each_layer(self) -> list[Layer]:
        """What is particular to each layer."""
        return [self.layer(i) for i in range(self.layers)]

    def ropes(self) -> list[Rope]:
        """Every rope that a layer has, once, in the order of the layers."""
        return list(dict.fromkeys(rope for i in range(self.layers) if (rope := self.layer(i).rope)))

    @property
    def score_scale(self) -> float:
        """What the products of queries and keys are multiplied by."""
        return self.head_dim**-0.5 if self.attention_scale is None else self.attention_scale

    def at_context(self, context: int) -> DecoderConfig:
        """The model whose cache holds `context` tokens: see Rope.at_context."""
        layers = tuple(replace(o, rope=o.rope and o.rope.at_context(context)) for o in self.layer_options)
        return replace(self, rope=self.rope.at_context(context), layer_options=layers)

    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """Every matrix by canonical name, in the order of the forward pass, with its shape (rows, columns)."""
        h = self.hidden_size
        shapes: dict[str, tuple[int, int]] = {"embed_tokens": (self.vocab_size, h)}
        for i in range(self.layers):
            layer, a, m = self.layer(i), f"layers.{i}.self_attn", f"layers.{i}.mlp"
            q, kv, f = layer.heads * self.head_dim, layer.kv_heads * self.head_dim, layer.intermediate_size
            shapes |= {f"{a}.q_proj": (q, h), f"{a}.k_proj": (kv, h), f"{a}.v_proj": (kv, h), f"{a}.o_proj": (h, q)}
            shapes |= {f"{m}.gate_proj": (f, h)} if self.gated else {}
            shapes |= {f"{m}.up_proj": (f, h), f"{m}.down_proj": (h, f)}
        if not self.tied_embeddings:
            shapes["lm_head"] = (self.vocab_size, h)
        return shapes

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """The same of the linears of the layers, without embedding and head."""
        return {name: shape for name, shape in self.matrix_shapes().items() if name.startswith("layers.")}

    def norms(self) -> dict[str, tuple[int]]:
        """Canonical name of every norm of the residual stream, or of what is added to it, and of queries and keys."""
        kinds = ["input_layernorm"] if self.pre_norm else []
        kinds += ["attention_output_layernorm"] if self.post_norm else []
        kinds += ["post_attention_layernorm"] if self.pre_norm and not self.parallel else []
        kinds += ["mlp_output_layernorm"] if self.post_norm else []
        shapes = {f"layers.{i}.{kind}": (self.hidden_size,) for i in range(self.layers) for kind in kinds}
        return {"norm": (self.hidden_size,), **shapes, **self._qk_norms()}

    def _qk_norms(self) -> dict[str, tuple[int]]:
        shapes: dict[str, tuple[int]] = {}
        for i in range(self.layers if self.qk_norm else 0):
            for part, heads in (("q", self.layer(i).heads), ("k", self.layer(i).kv_heads)):
                size = self.head_dim * (1 if self.qk_norm == "head" else heads)
                shapes[f"layers.{i}.self_attn.{part}_norm"] = (size,)
        return shapes

    def vector_shapes(self) -> dict[str, tuple[int]]:
        """Every vector (norm gain or bias) by canonical name, with its shape."""
        shapes = self.norms()
        if self.norm == "layer":
            shapes |= {f"{name}.bias": shape for name, shape in shapes.items() if ".self_attn." not in name}
        for name, (rows, _) in self.matrix_shapes().items():
            if self._biased(name):
                shapes[f"{name}.bias"] = (rows,)
        if self.suppressed_ids:
            shapes["lm_head.bias"] = (self.vocab_size,)
        return shapes

    def _biased(self, name: str) -> bool:
        if ".self_attn." in name:
            return self.attention_bias or (self.qkv_bias and not name.endswith(".o_proj"))
        return self.mlp_bias if ".mlp." in name else self.head_bias and name == "lm_head"


@dataclass(frozen=True)
class Rows:
    """Consecutive rows (or, of a vector, elements) of a stored tensor that holds several, one under the other."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class Runs:
    """`count` runs of `length` rows of a stored tensor, the first from row `start`, each `step` rows after the last."""

    name: str
    start: int
    length: int
    step: int
    count: int

    def rows(self) -> np.ndarray:
        """Which stored rows they are, int64, rising."""
        return np.asarray(
            (self.start + self.step * np.arange(self.count)[:, None] + np.arange(self.length)).reshape(-1)
        )


@dataclass(frozen=True)
class Suppression:
    """Not stored: a bias of the head that is SUPPRESSED for these ids, and 0 otherwise."""

    ids: tuple[int, ...]

    def values(self, size: int) -> np.ndarray:
        """float32 [size]."""
        bias = np.zeros(size, np.float32)
        bias[list(self.ids)] = SUPPRESSED
        return bias


@dataclass(frozen=True)
class Joined:
    """Stored vectors that make up one, in this order."""

    names: tuple[str, ...]


Place = str | Rows | Runs | Joined | Suppression
"""Where a checkpoint holds a tensor: the name of the stored one where that is the same."""


def unchanged(config: DecoderConfig, name: str, values: np.ndarray) -> np.ndarray:
    """llama.cpp changes nothing in most families: it rotates channels half a head apart, as the original does."""
    return values


@dataclass(frozen=True)
class GgufLayout:
    """How llama.cpp's conversion of a family differs from the original.

    Attributes:
        tensor_names: config -> {canonical name: place in a GGUF file}, complete.
        restore: (config, canonical name, float32 values) -> values in the original order of rows.
        ignored: as in Family.
        fused: config -> {canonical name: where it is in a file that holds it fused with others}, which goes before
            `tensor_names` where the file has such a tensor.
        hugging_face: configuration as the file gives it -> what transformers takes, for a family whose GGUF files
            transformers does not read itself.
    """

    tensor_names: Callable[[DecoderConfig], Mapping[str, Place]]
    restore: Callable[[DecoderConfig, str, np.ndarray], np.ndarray] = unchanged
    ignored: tuple[str, ...] = ()
    fused: Callable[[DecoderConfig], dict[str, Rows]] | None = None
    hugging_face: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Stand:
    """A model of transformers' that computes the same, for a family that transformers does not have.

    Attributes:
        configuration: (configuration as the checkpoint has it, config) -> that of the model, model_type among it.
        layer: (config, number of a layer) -> what its configuration says otherwise for that layer.
        tensor_names: config -> {canonical name: place among its parameters}.
        adapt: (torch module, config) exchanges parts of it for others, before it has weights.
    """

    configuration: Callable[[Mapping[str, Any], DecoderConfig], dict[str, Any]]
    layer: Callable[[DecoderConfig, int], dict[str, Any]]
    tensor_names: Callable[[DecoderConfig], Mapping[str, Place]]
    adapt: Callable[[Any, DecoderConfig], None] = lambda model, config: None


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: as users know it.
        model_types: values of `model_type` in config.json, and of `general.architecture` in a GGUF file.
        configure: a Hugging Face configuration -> DecoderConfig; raises CheckpointError for an option it lacks.
        tensor_names: config -> {canonical name: place in a checkpoint}, complete; anything else in it is refused.
        ignored: checkpoint names that carry nothing (buffers that old exporters saved), as exact names or suffixes.
        tied_head: name of a head that some exporters store although it is tied; "" if the family has none.
        gguf: how GGUF files hold this family; None if they are not read.
        gguf_as: the family that GGUF files of this one say they are of, and are read by; "" for none.
        norm_offset: added to the gains of norms as a safetensors file has them.
        stand: what is the reference of a family that transformers does not have.
        published: models of this family, by their ids on the hub, oldest first.
        always: what every model of the family has (see features.py).
        options: what some have and others lack.
        checked: what else its logits were held against, besides transformers, or instead of it.
    """

    name: str
    model_types: tuple[str, ...]
    configure: Callable[[Mapping[str, Any]], DecoderConfig]
    tensor_names: Callable[[DecoderConfig], Mapping[str, Place]]
    ignored: tuple[str, ...] = ()
    tied_head: str = ""
    gguf: GgufLayout | None = None
    gguf_as: str = ""
    norm_offset: float = 0.0
    stand: Stand | None = None
    published: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    checked: str = ""

    def parameters(self, config: DecoderConfig) -> Mapping[str, Place]:
        """Where the reference has each tensor, by transformers' names of its parameters."""
        return self.stand.tensor_names(config) if self.stand else self.tensor_names(config)
