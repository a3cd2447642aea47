"""Frequencies and tables against transformers' own rotary embedding."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from satchel.export.families.base import Rope
from satchel.export.rope import make_rope, partial_rope, rope_tables
from satchel.runtime.errors import CheckpointError

LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 1000000.0}
ROPES = {
    "default": {"rope_type": "default", "rope_theta": 10000.0},
    "smollm2": {"rope_type": "default", "rope_theta": 100000},
    "linear": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5},
    "yarn": {**YARN, "factor": 4.0, "original_max_position_embeddings": 1024},
    "yarn, all options": {
        **YARN,
        "factor": 8.0,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
        "truncate": False,
    },
    "yarn, attention factor": {**YARN, "factor": 2.0, "attention_factor": 1.25},
    "llama3": {**LLAMA3, "rope_theta": 500000.0, "original_max_position_embeddings": 8192},
    "llama3, original length from the model": {**LLAMA3, "rope_theta": 500000.0},
}


@pytest.mark.parametrize("head_dim", [64, 80, 128])
@pytest.mark.parametrize("parameters", ROPES.values(), ids=ROPES.keys())
def test_agrees_with_transformers(parameters, head_dim):
    config = LlamaConfig(
        hidden_size=4 * head_dim, num_attention_heads=4, max_position_embeddings=4096, rope_parameters=dict(parameters)
    )
    theirs = LlamaRotaryEmbedding(config)
    ours = make_rope(parameters, head_dim, 4096)
    np.testing.assert_allclose(ours.inv_freq, theirs.inv_freq.numpy(), rtol=1e-6 if ours.kind == "yarn" else 3e-7)
    assert ours.attention_factor == pytest.approx(theirs.attention_scaling, rel=1e-12)

    cos, sin = rope_tables(Rope(tuple(theirs.inv_freq.tolist()), ours.attention_factor), 4096)
    their_cos, their_sin = theirs(torch.zeros(1), torch.arange(4096)[None])
    assert (cos.dtype, cos.shape) == (np.float32, (4096, head_dim // 2))
    np.testing.assert_allclose(cos, their_cos[0, :, : head_dim // 2].numpy(), atol=2e-7)
    np.testing.assert_allclose(sin, their_sin[0, :, : head_dim // 2].numpy(), atol=2e-7)


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": np.linspace(1, 2, 24).tolist(),
    "long_factor": np.linspace(1, 50, 24).tolist(),
}


@pytest.mark.parametrize("context", [4096, 4097])
@pytest.mark.parametrize("given", [{}, {"factor": 16.0}, {"attention_factor": 1.25}], ids=["", "factor", "attention"])
def test_longrope_on_both_sides_of_its_switch(given, context):
    """transformers chooses by the longest position that it sees; we by the context."""
    config = Phi3Config(
        hidden_size=256, num_attention_heads=4, partial_rotary_factor=0.75, max_position_embeddings=131072,
        original_max_position_embeddings=4096, rope_parameters=LONGROPE | given,
    )  # fmt: skip
    parameters = {**LONGROPE, **given, "original_max_position_embeddings": 4096}
    ours = partial_rope({**parameters, "partial_rotary_factor": 0.75}, 64, 131072)
    cos, sin = rope_tables(ours.at_context(context), context)
    their_cos, their_sin = Phi3RotaryEmbedding(config)(torch.zeros(1), torch.arange(context)[None])
    np.testing.assert_allclose(cos, their_cos[0, :, :24].numpy(), atol=1e-3)  # positions times 3e-7
    np.testing.assert_allclose(sin, their_sin[0, :, :24].numpy(), atol=1e-3)
    other = rope_tables(ours.at_context(8193 - context), context)
    assert np.abs(other[0] - cos).max() > 0.5


def test_attention_factor_multiplies_both_tables():
    cos, sin = rope_tables(Rope((1.0, 0.5), attention_factor=2.0), 3)
    np.testing.assert_allclose(cos[2], 2 * np.cos([2.0, 1.0]), rtol=1e-6)
    np.testing.assert_allclose(sin[2], 2 * np.sin([2.0, 1.0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "dynamic"),
        ({"rope_type": "yarn", "rope_theta": 1e4}, "factor"),
        ({"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": -1}, "beta_fast"),
        ({"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "finetuned": True}, "yarn"),
        ({"rope_type": "linear", "rope_theta": 1e4}, "factor"),
        ({"rope_type": "default", "rope_theta": 1e4, "factor": 2.0}, "factor"),
        ({"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_type": "default", "rope_theta": float("nan")}, "rope_theta"),
        ({"rope_type": "default", "rope_theta": "big"}, "rope_theta"),
        ({**LLAMA3, "rope_theta": 1e4, "low_freq_factor": 4.0}, "low_freq_factor"),
    ],
)
def test_refuses_what_it_would_get_wrong(parameters, words):
    with pytest.raises(CheckpointError, match=words):
        make_rope(parameters, 64, 4096)


@pytest.mark.parametrize("head_dim", [0, 1, 63])
def test_refuses_odd_heads(head_dim):
    with pytest.raises(CheckpointError, match="head_dim"):
        make_rope(ROPES["default"], head_dim, 4096)
