"""Phi-3-small: against a model put together from transformers' parts, and that against Microsoft's own ONNX model."""

import genai_phi3small
import numpy as np
import pytest
import tiny_phi3small
from family_runner import Case, check, in_every_op_set

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.phi3small import configure
from satchel.export.families.registry import load_family
from satchel.export.reference import Reference
from satchel.runtime.errors import CheckpointError

SMALL = {"model_type": "phi3small"}
FACTORS = {"short_factor": [1.0 + i / 10 for i in range(8)], "long_factor": [1.0 + 3 * i for i in range(8)]}
LONGROPE = {
    "type": "su", "original_max_position_embeddings": 16, "short_mscale": 1.1, "long_mscale": 1.4, **FACTORS
}  # fmt: skip
CASES = {
    "128k, long: blocks that differ by head": Case(SMALL | {"rope_scaling": LONGROPE}),
    "8k: blocks alike, ids that may be said": Case(
        SMALL
        | {
            "blocksparse_homo_head_pattern": True,
            "dummy_token_indices": None,
            "mup_use_scaling": False,
            "mup_embedding_multiplier": 1.0,
            "mup_width_multiplier": 1.0,
        }
    ),
    "128k, short": Case(SMALL | {"rope_scaling": LONGROPE}, context=16),
    "all layers dense, positions squeezed": Case(
        SMALL | {"dense_attention_every_n_layers": 1, "rope_position_scale": 4.0, "num_key_value_heads": 4}
    ),
    "all layers sparse, large blocks": Case(
        SMALL
        | {
            "dense_attention_every_n_layers": 0,
            "blocksparse_block_size": 8,
            "num_key_value_heads": 1,
            "tie_word_embeddings": False,
        }
    ),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_the_stand_in(case, op_set, tmp_path):
    check(case, op_set, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("alike", [False, True])
def test_onnxruntimes_sparse_attention_says_the_same_as_the_reference(tmp_path, alike):
    """Blocks of 16 tokens are the least that it takes; what may not be said is compared as being far below the rest."""
    options = {
        "blocksparse_block_size": 16, "blocksparse_triton_kernel_block_size": 16, "blocksparse_homo_head_pattern": alike
    }  # fmt: skip
    config, ids = tiny_phi3small.PHI3SMALL | options, np.random.default_rng(0).integers(3, 160, (1, 100))
    theirs = genai_phi3small.logits(tmp_path, config, tiny_phi3small.tensors(config), ids)
    tiny_phi3small.save(tmp_path, options)
    for streamed in (False, True):
        with Reference(tmp_path, streamed=streamed) as reference:
            ours = reference.logits(ids[0].tolist())
        np.testing.assert_allclose(np.maximum(ours, -5000), np.maximum(theirs, -5000), atol=3e-4)
    assert (np.abs(theirs) < 1000).sum(1).tolist() == [158] * 100


def test_prompts_of_different_lengths_are_continued_as_each_alone(tmp_path):
    """The reference pads on the left, where blocks must be counted from a prompt's first token."""
    tiny_phi3small.save(tmp_path, {})
    prompts = [[5, 9, 31], [int(i) for i in np.random.default_rng(2).integers(3, 150, 21)]]
    with Reference(tmp_path) as reference:
        together, logits = reference.continuations(prompts, 12)
        rows = reference.batch_logits(prompts)
        for prompt, found, row, chosen in zip(prompts, together, rows, logits, strict=True):
            np.testing.assert_allclose(row, reference.logits(prompt), atol=1e-4)
            whole = reference.logits(prompt + found[:-1])[len(prompt) - 1 :]
            np.testing.assert_allclose(chosen, whole, atol=1e-4)


def test_interleaved_rows_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("satchel.export.families.tensors.ROWS", 5)
    tiny_phi3small.save(tmp_path, {})
    config, tensors = load_family(open_checkpoint(tmp_path))
    fused = tiny_phi3small.tensors(tiny_phi3small.PHI3SMALL)["model.layers.1.self_attn.query_key_value.weight"]
    by_group = fused.reshape(2, 4, 16, 64)  # two queries, a key, a value
    np.testing.assert_array_equal(tensors.read("layers.1.self_attn.q_proj"), by_group[:, :2].reshape(64, 64))
    np.testing.assert_array_equal(
        tensors.read("layers.1.self_attn.v_proj", slice(3, 20)), by_group[:, 3].reshape(32, 64)[3:20]
    )
    assert [bool(config.layer(i).blocks) for i in range(3)] == [True, False, True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "silu"}, "hidden_act"),
        ({"dense_attention_every_n_layers": -1}, "dense_attention_every_n_layers"),
        ({"blocksparse_block_size": 0}, "blocksparse_block_size"),
        ({"gegelu_limit": 0}, "gegelu_limit"),
        ({"tie_word_embeddings": False, "lm_head_bias": True}, "lm_head_bias"),
        ({"rope_scaling": {"type": "odd", **FACTORS}}, "odd"),
        ({"dummy_token_indices": [160]}, "dummy_token_indices"),
        ({"num_local_experts": 8}, "num_local_experts=8"),
    ],
)
def test_refused_by_name(change, words):
    with pytest.raises(CheckpointError, match=words):
        configure(tiny_phi3small.PHI3SMALL | change)
