"""What a family of decoder-only transformers says about itself, in terms that every later stage uses.

Canonical tensor names, which the rest of Satchel knows (`{i}` is the layer's number):

    embed_tokens                                   [vocab, hidden]
    layers.{i}.input_layernorm                     [hidden]                 norm gain
    layers.{i}.self_attn.q_proj                    [heads * head_dim, hidden]
    layers.{i}.self_attn.k_proj, .v_proj           [kv_heads * head_dim, hidden]
    layers.{i}.self_attn.o_proj                    [hidden, heads * head_dim]
    layers.{i}.post_attention_layernorm            [hidden]                 norm gain
    layers.{i}.mlp.gate_proj, .up_proj             [intermediate, hidden]   gate_proj: gated MLPs only
    layers.{i}.mlp.down_proj                       [hidden, intermediate]
    norm                                           [hidden]                 norm gain
    lm_head                                        [vocab, hidden]          absent when tied to embed_tokens

A bias of a linear or a LayerNorm has its name and `.bias`. Where attention and MLP are parallel, both read
input_layernorm, and there is no post_attention_layernorm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding, rotate-half convention (of what is rotated, the first half pairs with the second).

    Attributes:
        inv_freq: `rotated / 2` inverse frequencies in radians a position, after any scaling of the checkpoint.
        attention_factor: multiplies cos and sin (1.0 but for YaRN and LongRoPE).
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0

    @property
    def rotated(self) -> int:
        """How many channels of a head are rotated, the first ones; the others pass as they are."""
        return 2 * len(self.inv_freq)


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder and what is special about it.

    Attributes:
        family: the `model_type` it was read from, such as "llama".
        vocab_size, hidden_size, layers, heads, kv_heads, head_dim, intermediate_size: counts.
        norm_eps: epsilon of the norms.
        activation: "silu" or "gelu_tanh", of the gate, or between up and down where there is no gate.
        tied_embeddings: whether lm_head is embed_tokens.
        max_position: the context length that the model was trained for, in tokens.
        rope: rotary embedding of every layer.
        attention_bias, mlp_bias, head_bias: whether the linears have biases.
        norm: "rms" (RMSNorm, a gain only) or "layer" (LayerNorm, a gain and a bias).
        parallel: attention and MLP read the same norm, and their results are added to the residual stream together.
        gated: whether the MLP has a gate: down(act(gate(x)) * up(x)) instead of down(act(up(x))).
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
    activation: Literal["silu", "gelu_tanh"]
    tied_embeddings: bool
    max_position: int
    rope: Rope
    attention_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    norm: Literal["rms", "layer"] = "rms"
    parallel: bool = False
    gated: bool = True
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def matrix_shapes(self) -> dict[str, tuple[int, int]]:
        """Every matrix by canonical name, in the order of the forward pass, with its shape (rows, columns)."""
        h, q, kv, f = (
            self.hidden_size,
            self.heads * self.head_dim,
            self.kv_heads * self.head_dim,
            self.intermediate_size,
        )
        shapes: dict[str, tuple[int, int]] = {"embed_tokens": (self.vocab_size, h)}
        for i in range(self.layers):
            a, m = f"layers.{i}.self_attn", f"layers.{i}.mlp"
            shapes |= {f"{a}.q_proj": (q, h), f"{a}.k_proj": (kv, h), f"{a}.v_proj": (kv, h), f"{a}.o_proj": (h, q)}
            shapes |= {f"{m}.gate_proj": (f, h)} if self.gated else {}
            shapes |= {f"{m}.up_proj": (f, h), f"{m}.down_proj": (h, f)}
        if not self.tied_embeddings:
            shapes["lm_head"] = (self.vocab_size, h)
        return shapes

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """The same of the linears of the layers, without embedding and head."""
        return {name: shape for name, shape in self.matrix_shapes().items() if name.startswith("layers.")}

    def norms(self) -> list[str]:
        """Canonical names of the norms' gains."""
        kinds = ["input_layernorm"] if self.parallel else ["input_layernorm", "post_attention_layernorm"]
        return ["norm", *(f"layers.{i}.{kind}" for i in range(self.layers) for kind in kinds)]

    def vector_shapes(self) -> dict[str, tuple[int]]:
        """Every vector (norm gain or bias) by canonical name, with its shape."""
        shapes: dict[str, tuple[int]] = dict.fromkeys(self.norms(), (self.hidden_size,))
        if self.norm == "layer":
            shapes |= {f"{name}.bias": (self.hidden_size,) for name in self.norms()}
        biased = ((".self_attn.", self.attention_bias), (".mlp.", self.mlp_bias), ("lm_head", self.head_bias))
        for name, (rows, _) in self.matrix_shapes().items():
            if any(on and part in name for part, on in biased):
                shapes[f"{name}.bias"] = (rows,)
        return shapes


@dataclass(frozen=True)
class Rows:
    """Consecutive rows (or, of a vector, elements) of a stored tensor that holds several, one under the other."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class GgufLayout:
    """How llama.cpp's conversion of a family differs from the original.

    Attributes:
        tensor_names: config -> {canonical name: name in a GGUF file}, complete.
        restore: (config, canonical name, float32 values) -> values in the original order of rows.
        ignored: as in Family.
        fused: config -> {canonical name: where it is in a file that holds it fused with others}, which goes before
            `tensor_names` where the file has such a tensor.
        hugging_face: configuration as the file gives it -> what transformers takes, for a family whose GGUF files
            transformers does not read itself.
    """

    tensor_names: Callable[[DecoderConfig], dict[str, str]]
    restore: Callable[[DecoderConfig, str, np.ndarray], np.ndarray]
    ignored: tuple[str, ...] = ()
    fused: Callable[[DecoderConfig], dict[str, Rows]] | None = None
    hugging_face: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes:
        name: as users know it.
        model_types: values of `model_type` in config.json, and of `general.architecture` in a GGUF file.
        configure: a Hugging Face configuration -> DecoderConfig; raises CheckpointError for an option it lacks.
        tensor_names: config -> {canonical name: checkpoint name}, complete; anything else in the file is refused.
        ignored: checkpoint names that carry nothing (buffers that old exporters saved), as exact names or suffixes.
        tied_head: name of a head that some exporters store although it is tied; "" if the family has none.
        gguf: how GGUF files hold this family; None if they are not read.
    """

    name: str
    model_types: tuple[str, ...]
    configure: Callable[[Mapping[str, Any]], DecoderConfig]
    tensor_names: Callable[[DecoderConfig], dict[str, str]]
    ignored: tuple[str, ...] = ()
    tied_head: str = ""
    gguf: GgufLayout | None = None
