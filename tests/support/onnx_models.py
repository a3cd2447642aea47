"""Tiny ONNX models for tests, and plans to write them by."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_llama import MemoryWeights, tiny_llama, weights_of
from transformers import PreTrainedModel

from satchel.devices.plan import Choice, Plan
from satchel.export.families.base import DecoderConfig
from satchel.export.formats.onnx import write
from satchel.runtime.backends.onnx import OnnxBackend
from satchel.runtime.manifest import ModelEntry, ModelInfo

PALETTES = ("palette", "palette-rows16", "palette-mixed", "palette-mixed-rows16")
SCHEMES = ("fp32", "fp16", *PALETTES, "int8", "int4", "int4-sym")
INFO = ModelInfo("tests/tiny", "llama", "", "Apache-2.0", "", "random", 0)


def plan(context_length: int = 64, lm_head: str = "last_token") -> Plan:
    return Plan("test", "onnx", context_length, 0, (Choice("lm_head", lm_head, "", ""),))


def written(
    folder: Path,
    scheme: str,
    context_length: int = 64,
    lm_head: str = "last_token",
    tiny: Callable[..., tuple[Any, DecoderConfig]] = tiny_llama,
    **options: object,
) -> tuple[Any, DecoderConfig, MemoryWeights, ModelEntry]:
    """A tiny model in `folder`, with the reference that holds the same dequantized weights."""
    reference, config = tiny(**options)
    weights = weights_of(reference, config, scheme)
    return reference, config, weights, write(folder, weights, config, plan(context_length, lm_head), INFO)


def tokens(count: int, vocab: int = 256) -> list[int]:
    return [int(t) for t in np.random.default_rng(3).integers(0, vocab, count)]


def logits_of(reference: PreTrainedModel, ids: list[int]) -> np.ndarray:
    """fp32 [len(ids), vocab], by transformers."""
    with torch.no_grad():
        return reference(torch.tensor([ids])).logits[0].numpy()


def logits_by(backend: OnnxBackend, ids: list[int], prompt: int) -> np.ndarray:
    """fp32 [len(ids) - prompt + 1, vocab]: after a prefill of `prompt` tokens, and after each further token."""
    return np.stack([backend.prefill(ids[:prompt]), *(backend.step(token) for token in ids[prompt:])])


def kl(want: np.ndarray, got: np.ndarray) -> np.ndarray:
    """KL(want || got) at each position, in nats."""
    p, q = (torch.log_softmax(torch.from_numpy(x).double(), -1) for x in (want, got))
    return (p.exp() * (p - q)).sum(-1).numpy()
