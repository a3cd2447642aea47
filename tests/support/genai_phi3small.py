"""Phi-3-small as onnxruntime-genai builds it: its own reading of the weights, and onnxruntime's SparseAttention.

The builder is given modules with the names and shapes of the published code, and none of that code.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn
from transformers import PretrainedConfig


class Phi3SmallDecoderLayer(nn.Module):
    """The builder knows a layer by the end of this name."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, width = config["hidden_size"], config["ff_intermediate_size"]
        dim = hidden // config["num_attention_heads"]
        rows = (config["num_attention_heads"] + 2 * config["num_key_value_heads"]) * dim
        self.input_layernorm, self.post_attention_layernorm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.self_attn = nn.ModuleDict({"query_key_value": nn.Linear(hidden, rows), "dense": nn.Linear(hidden, hidden)})
        self.mlp = nn.ModuleDict({"up_proj": nn.Linear(hidden, 2 * width), "down_proj": nn.Linear(width, hidden)})


def model(config: dict[str, Any], tensors: dict[str, np.ndarray]) -> nn.Module:
    """Modules that hold the weights of a checkpoint."""
    whole = nn.Module()
    whole.model = nn.Module()
    whole.model.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
    whole.model.layers = nn.ModuleList(Phi3SmallDecoderLayer(config) for _ in range(config["num_hidden_layers"]))
    whole.model.final_layernorm = nn.LayerNorm(config["hidden_size"])
    whole.load_state_dict({name: torch.from_numpy(values) for name, values in tensors.items()})
    whole.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
    whole.lm_head.weight = whole.model.embed_tokens.weight
    return whole.requires_grad_(False)


def logits(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """Logits [tokens, vocab] after each of ids [1, tokens], in one pass."""
    from onnxruntime_genai.models.builders.phi import Phi3SmallModel

    whole = model(config, tensors)

    class Built(Phi3SmallModel):
        def load_weights(self, input_path: str) -> nn.Module:
            return whole

    given = PretrainedConfig(**{k: v for k, v in config.items() if k not in ("model_type", "auto_map")})
    given.intermediate_size, given._name_or_path = config["ff_intermediate_size"], ""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        built = Built(given, ir.DataType.FLOAT, ir.DataType.FLOAT, "cpu", str(folder), {"extra": 0})
        built.make_model("")
        built.save_model(str(folder))
    session = onnxruntime.InferenceSession(next(folder.glob("*.onnx")))
    binding = session.io_binding()
    binding.bind_cpu_input("input_ids", ids)
    binding.bind_cpu_input("attention_mask", np.ones_like(ids))
    dim = config["hidden_size"] // config["num_attention_heads"]
    for i in range(config["num_hidden_layers"]):
        for kind in ("key", "value"):  # past and present are one buffer, as SparseAttention asks
            shape = (1, config["num_key_value_heads"], config["max_position_embeddings"], dim)
            cache = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
            binding.bind_ortvalue_input(f"past_key_values.{i}.{kind}", cache)
            binding.bind_ortvalue_output(f"present.{i}.{kind}", cache)
    binding.bind_output("logits")
    session.run_with_iobinding(binding)
    found: np.ndarray = binding.get_outputs()[-1].numpy()[0]
    return found
