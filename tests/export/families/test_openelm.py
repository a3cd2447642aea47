"""OpenELM, whose layers differ in size: against llama.cpp, and transformers' Qwen 3 with layers of those sizes."""

import llama_cpp
import numpy as np
import pytest
import tiny_openelm
from family_runner import Case, check, in_every_op_set

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.openelm import configure
from satchel.export.families.registry import load_family
from satchel.export.reference import Reference
from satchel.runtime.errors import CheckpointError

IDS = [int(t) for t in np.random.default_rng(1).integers(3, 265, 30)]
CASES = {
    "tied": Case({"model_type": "openelm"}),
    "untied, heads not normed, not grouped": Case(
        {
            "model_type": "openelm",
            "share_input_output_layers": False,
            "normalize_qk_projections": False,
            "num_kv_heads": [2, 4, 6],
        }
    ),
}


@in_every_op_set(CASES)
def test_logits_are_those_of_the_stand_in(case, op_set, tmp_path):
    check(case, op_set, tmp_path)


def test_llama_cpp_says_the_same_as_the_reference(tmp_path):
    tiny_openelm.save(tmp_path, {})
    path = str(tiny_openelm.save_gguf(tmp_path / "tiny.gguf"))
    model = llama_cpp.Llama(path, n_ctx=32, logits_all=True, verbose=False, type_k=0, type_v=0, n_threads=1)
    model.eval(IDS)
    for streamed in (False, True):
        with Reference(tmp_path, streamed=streamed) as reference:
            np.testing.assert_allclose(reference.logits(IDS), np.array(model.scores[:30]), atol=2e-3)


def test_shapes_of_the_checkpoint(tmp_path):
    tiny_openelm.save(tmp_path, {})
    config, tensors = load_family(open_checkpoint(tmp_path))
    assert [config.layer(i).intermediate_size for i in range(3)] == list(tiny_openelm.WIDTHS)
    assert (config.heads, config.kv_heads) == (6, 3)
    stored = tiny_openelm.tensors()["transformer.layers.2.ffn.proj_1.weight"]
    np.testing.assert_array_equal(tensors.read("layers.2.mlp.up_proj", slice(3, 7)), stored[131:135])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"activation_fn_name": "gelu"}, "activation_fn_name"),
        ({"normalization_layer_name": "layer_norm"}, "normalization_layer_name"),
        ({"ffn_with_glu": False}, "no gate"),
        ({"num_kv_heads": [1, 2]}, "num_kv_heads"),
        ({"num_kv_heads": [2, 3, 3]}, "divide"),
        ({"ffn_multipliers": None}, "ffn_multipliers"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
    ],
)
def test_refused_by_name(change, words):
    with pytest.raises(CheckpointError, match=words):
        configure(tiny_openelm.OPENELM | change)
