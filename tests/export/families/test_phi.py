"""The Phi family: logits, what is read out of a configuration, what is refused, and llama.cpp's files of it."""

import json

import gguf
import numpy as np
import pytest
import torch
from family_runner import Case, check, in_every_op_set
from tiny_phi import save_phi_gguf, tiny_phi
from transformers import PhiConfig
from transformers.models.phi.modeling_phi import PhiRotaryEmbedding

from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.phi import GGUF_TENSORS, configure
from satchel.export.families.registry import family_of, load_family
from satchel.export.ops.torch import TorchDecoder
from satchel.export.reference import Reference
from satchel.runtime.errors import CheckpointError

BASE = {
    "model_type": "phi", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
IDS = [1, 17, 200, 3, 3, 91, 54, 8]

CASES = {
    "grouped queries": Case({"model_type": "phi"}),
    "2: a part of each head is rotated": Case(
        {"model_type": "phi", "num_key_value_heads": 4,
         "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.375}}
    ),
    "all of each head is rotated": Case(
        {"model_type": "phi", "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0}}
    ),
}  # fmt: skip


@in_every_op_set(CASES)
def test_logits_are_those_of_transformers(case, op_set, tmp_path):
    check(case, op_set, tmp_path)


def test_defaults_are_those_of_transformers():
    ours, theirs = configure(BASE), PhiConfig(**BASE)
    assert (ours.kv_heads, ours.head_dim, ours.rope.rotated) == (theirs.num_key_value_heads, 16, 8)
    assert (ours.norm_eps, ours.max_position) == (theirs.layer_norm_eps, theirs.max_position_embeddings)
    assert ours.tied_embeddings == theirs.tie_word_embeddings
    for given in (
        {"partial_rotary_factor": 0.25},
        {"rope_parameters": {"rope_theta": 1e5, "partial_rotary_factor": 0.25}},
    ):
        rope = configure(BASE | given).rope
        np.testing.assert_array_equal(rope.inv_freq, PhiRotaryEmbedding(PhiConfig(**BASE, **given)).inv_freq)
    assert configure(json.loads(theirs.to_json_string())) == configure(BASE | {"bos_token_id": 1, "eos_token_id": 2})


def test_phi_2_configuration_is_taken_whole():
    real = {
        "architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 50256, "embd_pdrop": 0.0,
        "eos_token_id": 50256, "hidden_act": "gelu_new", "hidden_size": 2560, "initializer_range": 0.02,
        "intermediate_size": 10240, "layer_norm_eps": 1e-05, "max_position_embeddings": 2048, "model_type": "phi",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4,
        "qk_layernorm": False, "resid_pdrop": 0.1, "rope_scaling": None, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.37.0", "use_cache": True,
        "vocab_size": 51200,
    }  # fmt: skip
    config = configure(real)
    assert (config.head_dim, config.rope.rotated, config.activation) == (80, 32, "gelu_tanh")
    sizes = [*config.matrix_shapes().values(), *config.vector_shapes().values()]
    assert sum(int(np.prod(s)) for s in sizes) == 2_779_683_840, "as the model's card counts them"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"qk_layernorm": True}, "qk_layernorm=True"),
        ({"tie_word_embeddings": True}, "tied"),
        ({"architectures": ["PhiForSequenceClassification"]}, "PhiForSequenceClassification"),
        ({"partial_rotary_factor": 0}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.3, "hidden_size": 40}, "frequencies"),  # 3 of 10 channels
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"num_attention_heads": 5}, "divide"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"layer_norm_eps": -1}, "layer_norm_eps"),
    ],
)
def test_refused_by_name(change, words):
    config = BASE | change
    with pytest.raises(CheckpointError, match=words):
        family_of(config).configure(config)


def test_names_in_a_gguf_file_are_those_of_llama_cpp():
    """gguf-py's own table, from transformers' names to the file's."""
    _, config = tiny_phi()
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.PHI2, config.layers)
    family = family_of({"model_type": "phi2"})
    ours = family.gguf.tensor_names(config)
    theirs = {n: table.get_name(s, (".weight", ".bias")) for n, s in family.tensor_names(config).items()}
    assert ours == theirs
    assert len(GGUF_TENSORS) == 19


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0])
def test_gguf_files(tmp_path, fused, kind):
    model, config = tiny_phi(rotated=0.25, vocab=265)
    path = save_phi_gguf(tmp_path / "tiny.gguf", model, kind, fused=fused)
    found, tensors = load_family(open_checkpoint(path))
    assert found.rope == config.rope
    state, names = model.state_dict(), family_of({"model_type": "phi"}).tensor_names(config)
    for name in tensors.names():
        want = state[names[name]].numpy()
        stored = gguf.quants.dequantize(gguf.quants.quantize(want, kind), kind) if want.ndim == 2 else want
        np.testing.assert_array_equal(tensors.read(name), stored)
        state[names[name]].copy_(torch.from_numpy(stored))
    with torch.no_grad():
        want = model(torch.tensor([IDS])).logits[0].numpy()
    for streamed in (False, True):
        with Reference(path, streamed=streamed) as reference:
            np.testing.assert_allclose(reference.logits(IDS), want, atol=1e-5)
    np.testing.assert_allclose(TorchDecoder(found, Uncompressed(tensors)).logits(IDS), want, atol=1e-4)


def test_a_fused_tensor_of_another_size_is_refused(tmp_path):
    model, _ = tiny_phi(kv_heads=4, vocab=265)
    model.config.num_key_value_heads = 2
    path = save_phi_gguf(tmp_path / "tiny.gguf", model, fused=True)
    with pytest.raises(CheckpointError, match=r"attn_qkv.*another shape.*192.*128"):
        load_family(open_checkpoint(path))
