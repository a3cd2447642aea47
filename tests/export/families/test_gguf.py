"""GGUF files of every family that the format knows: tensors, and what transformers and llama.cpp make of them."""

import family_gguf
import llama_cpp
import numpy as np
import pytest
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
FAMILIES = {
    "llama": {},
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
IDS = [int(t) for t in np.random.default_rng(1).integers(3, VOCAB, CONTEXT)]


def tiny_family(name):
    """The family that a name of FAMILIES is of."""
    return family_of({"model_type": name.partition("-")[0]})


def tiny(name):
    options = {"vocab_size": VOCAB, "intermediate_size": 128, "model_type": name.partition("-")[0]}
    return random_model(options | FAMILIES[name])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_is_the_model_that_it_was_made_of(tmp_path, name):
    model = tiny(name)
    path = family_gguf.save(tmp_path / "tiny.gguf", model)
    config, tensors = load_family(open_checkpoint(path))
    with torch.no_grad():
        want = model(torch.tensor([IDS])).logits[0].numpy()
    config = config.at_context(CONTEXT)
    np.testing.assert_allclose(TorchDecoder(config, Uncompressed(tensors)).logits(IDS), want, atol=1e-4)
    for streamed in (False, True):
        with Reference(path, streamed=streamed) as reference:
            np.testing.assert_allclose(reference.logits(IDS), want, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_says_the_same(tmp_path, name):
    """In Q8_0, which llama.cpp multiplies with activations rounded to 8 bits."""
    path = family_gguf.save(tmp_path / "tiny.gguf", tiny(name), Q.F32)
    config, tensors = load_family(open_checkpoint(path))
    ours = TorchDecoder(config.at_context(CONTEXT + 2), Uncompressed(tensors)).logits(IDS)
    theirs = by_llama_cpp(path)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


def by_llama_cpp(path):
    model = llama_cpp.Llama(
        str(path), n_ctx=CONTEXT + 2, logits_all=True, verbose=False, type_k=0, type_v=0, n_threads=1, flash_attn=False
    )
    model.eval(IDS)
    return np.array(model.scores[:CONTEXT])
