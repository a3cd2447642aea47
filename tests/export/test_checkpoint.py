"""Tensors read from safetensors and GGUF against what transformers reads from the same files."""

import hashlib
import json

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Q
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_gguf
from tiny_llama import tiny_llama

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.huggingface import load_model
from satchel.export.source import resolve
from satchel.runtime.errors import CheckpointError


def assert_same_tensors(path, theirs):
    """All tensors of a checkpoint, by canonical name, bit for bit."""
    config, tensors = load_family(open_checkpoint(path))
    state = theirs.state_dict()
    seen = set()
    for name in tensors.names():
        prefix = "" if name.startswith("lm_head") else "model."
        key = prefix + name + ("" if name.endswith(".bias") else ".weight")
        ours = tensors.read(name)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, state[key].float().numpy(), err_msg=name)
        seen.add(key)
    assert set(state) - seen <= ({"lm_head.weight"} if config.tied_embeddings else set())
    return config


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tied", "bias", "shard"), [(True, False, "1GB"), (False, True, "100KB")])
def test_folder_agrees_with_transformers(tmp_path, dtype, tied, bias, shard):
    model, ours = tiny_llama(tied=tied, bias=bias)
    model.to(dtype).save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) == 1) == (shard == "1GB")
    config = assert_same_tensors(tmp_path, load_model(tmp_path))
    assert (config.tied_embeddings, config.attention_bias, config.mlp_bias) == (tied, bias, bias)
    assert config.rope.inv_freq == pytest.approx(ours.rope.inv_freq)


@pytest.mark.parametrize("kind", [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q8_0], ids=lambda q: q.name)
def test_gguf_agrees_with_transformers(tmp_path, kind):
    model, config = tiny_llama(tied=kind != Q.Q4_1, kv_heads=2, intermediate=96)
    path = save_gguf(tmp_path / "tiny.gguf", model, config, kind)
    read = assert_same_tensors(path, load_model(path))
    assert read.layers == config.layers
    assert read.tied_embeddings == config.tied_embeddings
    if kind == Q.F32:  # not only as transformers reads it: as it was before the conversion
        _, tensors = load_family(open_checkpoint(path))
        np.testing.assert_array_equal(
            tensors.read("layers.1.self_attn.k_proj"), model.state_dict()["model.layers.1.self_attn.k_proj.weight"]
        )


def test_gguf_header_agrees_with_gguf_py(tmp_path):
    model, config = tiny_llama()
    path = save_gguf(tmp_path / "tiny.gguf", model, config, Q.Q8_0)
    checkpoint, theirs = open_checkpoint(path), gguf.GGUFReader(path)
    fields = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert checkpoint.metadata == fields
    assert {t.name: tuple(reversed(t.shape.tolist())) for t in theirs.tensors} == {
        n: checkpoint.shape(n) for n in checkpoint.names()
    }


@pytest.mark.parametrize(
    ("metadata", "extra"),
    [
        ({"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, {}),
        ({}, {"rope_freqs.weight": np.linspace(1, 8, 8, dtype=np.float32)}),
    ],
    ids=["linear", "factors"],
)
def test_gguf_rope_scaling(tmp_path, metadata, extra):
    model, config = tiny_llama()
    path = save_gguf(tmp_path / "tiny.gguf", model, config, metadata=metadata, extra=extra)
    scaled, _ = load_family(open_checkpoint(path))
    factors = extra.get("rope_freqs.weight", np.full(8, 4.0))
    np.testing.assert_allclose(scaled.rope.inv_freq, np.array(config.rope.inv_freq) / factors, rtol=1e-6)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}, "longrope"),
        ({"llama.attention.scale": 0.5}, "attention_multiplier"),
        ({"llama.attention.key_length": 32}, "partial_rotary_factor|head"),
        ({"split.count": 2}, "several parts"),
    ],
)
def test_gguf_options_that_are_not_carried_out_are_refused(tmp_path, metadata, words):
    model, config = tiny_llama()
    path = save_gguf(tmp_path / "tiny.gguf", model, config, metadata=metadata)
    with pytest.raises(CheckpointError, match=words):
        load_family(open_checkpoint(path))


def test_rows_of_a_tensor(tmp_path):
    model, config = tiny_llama()
    model.save_pretrained(tmp_path / "folder")
    save_gguf(tmp_path / "tiny.gguf", model, config, Q.Q4_0)
    for path, name in (
        (tmp_path / "folder", "model.embed_tokens.weight"),
        (tmp_path / "tiny.gguf", "token_embd.weight"),
    ):
        checkpoint = open_checkpoint(path)
        np.testing.assert_array_equal(checkpoint.read(name, slice(5, 9)), checkpoint.read(name)[5:9])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_impossible_weights_are_named(tmp_path, bad, dtype):
    model, _ = tiny_llama()
    model.to(dtype).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.layers.1.mlp.down_proj.weight"][3, 7] = bad
    save_file(state, tmp_path / "model.safetensors")
    _, tensors = load_family(open_checkpoint(tmp_path))
    tensors.read("layers.0.mlp.down_proj")
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.down_proj\.weight.*\(3, 7\), 1 in all"):
        tensors.read("layers.1.mlp.down_proj")


def test_weights_too_large_for_fp32_are_refused(tmp_path):
    model, _ = tiny_llama()
    model.to(torch.float64).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.norm.weight"][0] = 1e300
    save_file(state, tmp_path / "model.safetensors")
    _, tensors = load_family(open_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        tensors.read("norm")


def test_quantized_safetensors_are_refused(tmp_path):
    model, _ = tiny_llama()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["model.layers.0.mlp.up_proj.weight"] = state["model.layers.0.mlp.up_proj.weight"].to(torch.int8)
    save_file(state, tmp_path / "model.safetensors")
    _, tensors = load_family(open_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match="I8"):
        tensors.read("layers.0.mlp.up_proj")


def test_what_a_folder_says_of_itself(tmp_path):
    model, _ = tiny_llama()
    model.save_pretrained(tmp_path)
    info = open_checkpoint(tmp_path).info
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert (info.author, info.license, info.license_text) == ("", "unknown", "")
    assert info.source == f"safetensors, model.safetensors, sha256 {digest}"
    (tmp_path / "README.md").write_text("---\ntags: [a]\nlicense: apache-2.0\n---\n# Model\n")
    info = open_checkpoint(tmp_path).info
    assert info.license == "apache-2.0"
    assert "TERMS AND CONDITIONS" in info.license_text
    (tmp_path / "LICENSE").write_text("my own terms")
    assert open_checkpoint(tmp_path).info.license_text == "my own terms"


def test_what_a_gguf_says_of_itself(tmp_path):
    model, config = tiny_llama()
    info = open_checkpoint(save_gguf(tmp_path / "tiny.gguf", model, config)).info
    assert (info.author, info.license) == ("nobody", "apache-2.0")
    assert "TERMS AND CONDITIONS" in info.license_text
    assert info.source.startswith("gguf, tiny.gguf, sha256 ")


def test_generation_config_is_read(tmp_path):
    model, _ = tiny_llama()
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
    assert open_checkpoint(tmp_path).generation_config["eos_token_id"] == [5, 6]


@pytest.mark.smollm2
def test_smollm2_agrees_with_transformers():
    source = resolve("smollm2")
    config = assert_same_tensors(source.path, load_model(source.path))
    assert (config.layers, config.heads, config.kv_heads, config.vocab_size) == (30, 9, 3, 49152)
