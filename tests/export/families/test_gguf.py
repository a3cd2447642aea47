"""GGUF files of every family that the format knows: tensors, and what transformers and llama.cpp make of them."""

import family_gguf
import llama_cpp
import numpy as np
import pytest
import tiny_openelm
import torch
from family_gguf import Q
from family_runner import random_model

from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import family_of, load_family
from satchel.export.ops.torch import TorchDecoder
from satchel.export.reference import Reference

VOCAB, CONTEXT = 265, 30
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7],
    "long_factor": [1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0],
}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
ROPES = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}
FAMILIES = {
    "llama": {},
    "llama-yarn": {"rope_parameters": YARN},
    "gemma": {"head_dim": 32, "num_key_value_heads": 1},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 6, "attn_logit_softcapping": 3.0},
    "gemma3_text": {
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "sliding_window": 6,
        "num_hidden_layers": 7,
        "rope_parameters": ROPES,
        "initializer_range": 0.1,
    },
    "granite": {
        "attention_multiplier": 0.3,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.4,
        "logits_scaling": 2.0,
    },
    "openelm": {},
    "phi": {"num_key_value_heads": 4, "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "qwen2-yarn": {"rope_parameters": YARN},
    "mistral": {"sliding_window": None},
    "phi3": {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16},
    "phi3-plain": {"tie_word_embeddings": True},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
    "smollm3": {"num_hidden_layers": 4},
    "stablelm": {"partial_rotary_factor": 0.5},
    "stablelm-biased": {"use_qkv_bias": True},
    "stablelm-parallel": {"qk_layernorm": True, "use_parallel_residual": True},
    "olmo2": {"num_key_value_heads": 4},
}
QUICK = ("llama", "gemma3_text", "openelm", "phi", "phi3", "qwen3", "stablelm-parallel")
"""For every run: between them every way in which files differ; the others are for `pytest -m families`."""
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.families) for name in FAMILIES]
IDS = [int(t) for t in np.random.default_rng(1).integers(3, VOCAB, CONTEXT)]


def tiny_family(name):
    """The family that a name of FAMILIES is of."""
    return family_of({"model_type": name.partition("-")[0]})


def saved(path, name, kind=Q.F32):
    """A file of a tiny model, and the model's logits."""
    if name == "openelm":
        tiny_openelm.save(path.parent, {})
        with Reference(path.parent) as reference:
            want = reference.logits(IDS)
        return tiny_openelm.save_gguf(path), want
    model = tiny(name)
    with torch.no_grad():
        want = model(torch.tensor([IDS])).logits[0].numpy()
    return family_gguf.save(path, model, kind), want


def tiny(name):
    options = {"vocab_size": VOCAB, "intermediate_size": 128, "model_type": name.partition("-")[0]}
    return random_model(options | FAMILIES[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_the_model_that_it_was_made_of(tmp_path, name):
    path, want = saved(tmp_path / "tiny.gguf", name)
    config, tensors = load_family(open_checkpoint(path))
    config = config.at_context(CONTEXT)
    np.testing.assert_allclose(TorchDecoder(config, Uncompressed(tensors)).logits(IDS), want, atol=1e-4)
    for streamed in (False, True):
        with Reference(path, streamed=streamed) as reference:
            np.testing.assert_allclose(reference.logits(IDS), want, atol=1e-4)


@pytest.mark.parametrize("kind", ["gemma", "gemma2", "gemma3_text"])
def test_a_scaled_embedding_is_streamed_as_such(tmp_path, kind):
    model = random_model({"model_type": kind, "head_dim": 16})
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        want = model(torch.tensor([[3, 9, 31, 44]])).logits[0].numpy()
    with Reference(tmp_path, streamed=True) as reference:
        np.testing.assert_allclose(reference.logits([3, 9, 31, 44]), want, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_says_the_same(tmp_path, name):
    """In F32, since it multiplies quantized matrices with rounded activations; its GELU is a table in fp16."""
    path, _ = saved(tmp_path / "tiny.gguf", name)
    config, tensors = load_family(open_checkpoint(path))
    ours = TorchDecoder(config.at_context(CONTEXT + 2), Uncompressed(tensors)).logits(IDS)
    theirs = by_llama_cpp(path)
    np.testing.assert_allclose(ours, theirs, atol=1e-2 if config.activation == "gelu_tanh" else 2e-3)


def by_llama_cpp(path):
    model = llama_cpp.Llama(
        str(path), n_ctx=CONTEXT + 2, logits_all=True, verbose=False, type_k=0, type_v=0, n_threads=1, flash_attn=False
    )
    model.eval(IDS)
    return np.array(model.scores[:CONTEXT])
