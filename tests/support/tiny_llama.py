"""Tiny random Llama models: the transformers reference, our configuration of it, and its weights in any scheme.

The compression here is deliberately naive (quantiles, round to nearest): tests of formats compare with the dequantized
weights, so how good the palette is does not matter to them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from satchel.export.families.base import DecoderConfig, Rope
from satchel.export.families.registry import FAMILIES
from satchel.export.palettize.tensors import AffineTensor, Matrix, PalettizedTensor, PlainTensor

MIXED = {"q_proj": 3, "k_proj": 6, "v_proj": 8, "o_proj": 1, "gate_proj": 4, "up_proj": 2, "down_proj": 3}
"""Bits of each linear in a model of mixed widths: all that there are, and several in one packed linear."""


@dataclass
class MemoryWeights:
    """A `Weights` (export/ops/base.py) held in memory."""

    matrices: dict[str, Matrix]
    vectors: dict[str, np.ndarray]

    def matrix(self, name: str) -> Matrix:
        return self.matrices[name]

    def vector(self, name: str) -> np.ndarray:
        return self.vectors[name]

    def has(self, name: str) -> bool:
        return name in self.matrices or name in self.vectors


def naive_palette(w: np.ndarray, groups: int = 1, bits: int = 4) -> PalettizedTensor:
    """Quantile LUT over rows normalised by their largest value, int8 entries with a power of two."""
    rows = w.shape[0]
    scale = np.abs(w).max(1) + 1e-12
    exponent = np.full(groups, -14, np.int8)
    lut = np.zeros((groups, 2**bits), np.int8)
    index = np.zeros(w.shape, np.uint8)
    out_scale = np.zeros(rows, np.float16)
    for g in range(groups):
        part = slice(g * rows // groups, (g + 1) * rows // groups)
        u = w[part] / scale[part, None]
        entries = np.quantile(u, (np.arange(2**bits) + 0.5) / 2**bits)
        lut[g] = np.clip(np.round(entries * 127), -128, 127)
        if bits == 8:
            lut[g] = np.arange(-128, 128)
        power = max(-14, int(np.floor(np.log2((scale[part] / 127).min()))))
        exponent[g] = power
        out_scale[part] = np.maximum(scale[part] / 127 / 2.0**power, 1).astype(np.float16)
        u = w[part] / (out_scale[part, None].astype(np.float32) * 2.0**power)
        index[part] = np.searchsorted((lut[g][1:].astype(np.float32) + lut[g][:-1]) / 2, u)
    return PalettizedTensor(index, lut, exponent, out_scale, bits)


def naive_affine(w: np.ndarray, block: int = 32, symmetric: bool = False, scale_dtype: str = "float16") -> AffineTensor:
    """Round to nearest with a scale and a zero point for each block."""
    rows, columns = w.shape
    b = w.reshape(rows, -1, block)
    low, high = np.minimum(b.min(-1), 0), np.maximum(b.max(-1), 0)
    if symmetric:
        scale = np.maximum(np.abs(b).max(-1) / 7, 1e-6)
        zero = np.full(scale.shape, 8, np.uint8)
    else:
        scale = np.maximum((high - low) / 15, 1e-6)
        zero = np.clip(np.round(-low / scale), 0, 15).astype(np.uint8)
    if scale_dtype == "bfloat16":
        scale = torch.from_numpy(scale.astype(np.float32)).to(torch.bfloat16).float().numpy()
    else:
        scale = scale.astype(np.float16).astype(np.float32)
    code = np.clip(np.round(b / scale[:, :, None]) + zero[:, :, None], 0, 15).astype(np.uint8)
    return AffineTensor(code.reshape(rows, columns), scale.astype(np.float32), zero, block, scale_dtype)  # type: ignore[arg-type]


def compress(name: str, w: np.ndarray, scheme: str) -> Matrix:
    """scheme: fp32, fp16, palette, palette-rows16, int8, int4 (asymmetric), int4-sym (bfloat16 scales).

    palette-mixed and palette-mixed-rows16 give each linear of a layer its width by MIXED.
    """
    if scheme in ("fp32", "fp16"):
        return PlainTensor(w.astype(np.float32 if scheme == "fp32" else np.float16))
    if scheme == "int8" or name in ("embed_tokens", "lm_head"):
        return naive_palette(w, bits=8)
    if scheme.startswith("palette"):
        bits = MIXED[name.rpartition(".")[2]] if "mixed" in scheme else 4
        return naive_palette(w, groups=w.shape[0] // 16 if scheme.endswith("rows16") else 1, bits=bits)
    return naive_affine(w, symmetric=True, scale_dtype="bfloat16") if scheme == "int4-sym" else naive_affine(w)


def tiny_llama(
    *,
    tied: bool = True,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    intermediate: int = 128,
    vocab: int = 256,
    rope_theta: float = 10000.0,
    bias: bool = False,
    seed: int = 0,
) -> tuple[LlamaForCausalLM, DecoderConfig]:
    """A random Llama in transformers (fp32, eval, weights large enough to matter) and our configuration of it."""
    torch.manual_seed(seed)
    dim = head_dim or hidden // heads
    reference = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=dim,
            intermediate_size=intermediate,
            tie_word_embeddings=tied,
            attention_bias=bias,
            mlp_bias=bias,
            max_position_embeddings=512,
            rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
            initializer_range=0.15,
        )
    ).eval()
    with torch.no_grad():
        for name, p in reference.named_parameters():
            if "norm" in name:
                p.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                p.normal_(0, 0.1)
    inv_freq = 1.0 / (rope_theta ** (np.arange(0, dim, 2, dtype=np.float32) / dim))
    config = DecoderConfig(
        family="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=dim,
        intermediate_size=intermediate,
        norm_eps=reference.config.rms_norm_eps,
        activation="silu",
        tied_embeddings=tied,
        max_position=512,
        rope=Rope(tuple(float(f) for f in inv_freq)),
        attention_bias=bias,
        mlp_bias=bias,
        bos_token_id=1,
        eos_token_ids=(2,),
    )
    return reference, config


def weights_of(reference: PreTrainedModel, config: DecoderConfig, scheme: str = "fp32") -> MemoryWeights:
    """Compresses the reference's weights and, unless they are fp32, writes the dequantized values back into it.

    So `reference` afterwards is the independent model of exactly the weights that a format is given.
    """
    canonical = {stored: name for name, stored in FAMILIES[config.family].tensor_names(config).items()}
    matrices: dict[str, Matrix] = {}
    vectors: dict[str, np.ndarray] = {}
    with torch.no_grad():
        for key, p in reference.state_dict().items():
            if key not in canonical:
                assert key == "lm_head.weight" and config.tied_embeddings
                continue
            name = canonical[key]
            if p.ndim == 1:
                vectors[name] = p.numpy().copy()
            else:
                matrices[name] = compress(name, p.numpy().copy(), scheme)
                p.copy_(torch.from_numpy(matrices[name].dequantize()))
    return MemoryWeights(matrices, vectors)
