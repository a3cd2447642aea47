"""The Llama family: what is read out of a configuration, and everything that is refused rather than passed over."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import tiny_llama
from transformers import LlamaConfig

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.llama import configure
from satchel.export.families.registry import family_of, load_family
from satchel.runtime.errors import CheckpointError

BASE = {
    "model_type": "llama", "vocab_size": 256, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 256}


def test_defaults_are_those_of_transformers():
    ours, theirs = configure(BASE), LlamaConfig(**BASE)
    assert (ours.kv_heads, ours.head_dim) == (theirs.num_key_value_heads, theirs.head_dim)
    assert (ours.norm_eps, ours.max_position) == (theirs.rms_norm_eps, theirs.max_position_embeddings)
    assert (ours.activation, ours.tied_embeddings) == (theirs.hidden_act, theirs.tie_word_embeddings)
    assert (ours.attention_bias, ours.mlp_bias) == (theirs.attention_bias, theirs.mlp_bias)
    assert configure(json.loads(theirs.to_json_string())) == configure(BASE | {"bos_token_id": 1, "eos_token_id": 2})


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"rope_theta": 5e5}),
        (
            {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
            {"rope_scaling": {"type": "linear", "factor": 4.0}},
        ),
        ({"rope_parameters": {**LLAMA3, "rope_theta": 5e5}}, {"rope_theta": 5e5, "rope_scaling": LLAMA3}),
    ],
    ids=["default", "linear", "llama3"],
)
def test_rope_of_transformers_5_and_4(new, old):
    assert configure(BASE | new) == configure(BASE | old)
    assert configure(BASE | new).rope != configure(BASE).rope
    # Both at once, as we ask others to write them: the same again.
    assert configure(BASE | new | {"rope_theta": new["rope_parameters"]["rope_theta"]}) == configure(BASE | new)


def test_stop_ids_may_be_a_list():
    config = configure(BASE | {"bos_token_id": 7, "eos_token_id": [8, 9]})
    assert (config.bos_token_id, config.eos_token_ids) == (7, (8, 9))


def test_smollm2_configuration_is_taken_whole():
    real = {
        "architectures": ["LlamaForCausalLM"], "attention_bias": False, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.041666666666666664,
        "intermediate_size": 1536, "is_llama_config": True, "max_position_embeddings": 8192, "mlp_bias": False,
        "model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3,
        "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05, "rope_interleaved": False,
        "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
        "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}, "transformers_version": "4.42.3",
        "use_cache": True, "vocab_size": 49152,
    }  # fmt: skip
    config = configure(real)
    assert (config.head_dim, config.tied_embeddings, config.rope.inv_freq[0]) == (64, True, 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mamba"}, "mamba.*one of .*llama"),
        ({"model_type": None}, "one of .*llama"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "LlamaForSequenceClassification"),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantized.*awq"),
        ({"sliding_window": 4096}, "sliding_window=4096"),
        ({"num_local_experts": 8, "router_jitter": 0.1}, "num_local_experts=8, router_jitter=0.1"),
        ({"auto_map": {"AutoModel": "modeling.Model"}}, "auto_map"),
        ({"rope_interleaved": True}, "interleaved"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_key_value_heads": 3}, "divide"),
        ({"num_attention_heads": 5}, "divide"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"head_dim": 15}, "head_dim"),
        ({"vocab_size": "256"}, "vocab_size"),
        ({"intermediate_size": None}, "intermediate_size"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"eos_token_id": 256}, "eos_token_id"),
        ({"rms_norm_eps": -1}, "rms_norm_eps"),
        ({"rope_theta": 0}, "rope_theta"),
    ],
)
def test_refused_by_name(change, words):
    config = BASE | change
    with pytest.raises(CheckpointError, match=words):
        family_of(config).configure(config)


@pytest.fixture
def folder(tmp_path):
    """A tied model on disk, and a function that changes its tensors or its configuration."""
    model, _ = tiny_llama(tied=True)
    model.save_pretrained(tmp_path)

    def change(config=None, remove=(), **tensors):
        state = load_file(tmp_path / "model.safetensors")
        state = {k: v for k, v in state.items() if k not in remove} | {
            k.replace("__", "."): v for k, v in tensors.items()
        }
        save_file(state, tmp_path / "model.safetensors")
        values = json.loads((tmp_path / "config.json").read_text()) | (config or {})
        (tmp_path / "config.json").write_text(json.dumps(values))
        return tmp_path

    change.state = {k: v.clone() for k, v in model.state_dict().items()}
    return change


def load(path):
    return load_family(open_checkpoint(path))


def test_old_buffers_are_passed_over(folder):
    load(folder(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(8)))


def test_missing_and_unexpected_tensors_are_listed(folder):
    path = folder(remove=["model.norm.weight", "model.layers.1.mlp.up_proj.weight"], model__extra__weight=torch.ones(2))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    text = str(caught.value)
    assert "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight" in text
    assert "unexpected: model.extra.weight" in text


def test_fewer_layers_in_the_configuration_than_in_the_file(folder):
    with pytest.raises(CheckpointError, match=r"unexpected: model\.layers\.1\."):
        load(folder({"num_hidden_layers": 1}))


def test_wrong_shape(folder):
    with pytest.raises(CheckpointError, match=r"mlp\.(gate|down)_proj.*128.*112"):
        load(folder({"intermediate_size": 112}))


def test_bias_in_the_file_alone_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"unexpected: .*q_proj\.bias"):
        load(folder(model__layers__0__self_attn__q_proj__bias=torch.ones(64)))


def test_a_tied_head_that_is_stored_as_well(folder):
    embedding = folder.state["model.embed_tokens.weight"]
    config, tensors = load(folder(lm_head__weight=embedding.clone()))
    assert config.tied_embeddings
    assert "lm_head" not in tensors.names()
    other = embedding.clone()
    other[200, 5] += 1
    with pytest.raises(CheckpointError, match=r"ties the head.*tie_word_embeddings"):
        load(folder(lm_head__weight=other))
    with pytest.raises(CheckpointError, match="ties the head"):
        load(folder(lm_head__weight=other[:100].clone()))
    config, tensors = load(folder({"tie_word_embeddings": False}, lm_head__weight=other))  # honoured when it is said
    np.testing.assert_array_equal(tensors.read("lm_head"), other)


def test_untied_without_a_head_is_refused(folder):
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        load(folder({"tie_word_embeddings": False}))
