"""From a checkpoint to bundles: fused tensors, LongRoPE at two contexts, layers of different sizes; effort normal."""

import pytest
import tiny_openelm
import tiny_phi3small
from family_runner import random_model
from tiny_checkpoints import save_tokenizer

import satchel
from satchel.runtime.errors import UsageError
from satchel.runtime.parity import validate

DEVICES = ["iphone-15-pro", "pixel-9", "raspberry-pi-5"]
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
PHI3 = {
    "model_type": "phi3", "intermediate_size": 128, "vocab_size": 320, "max_position_embeddings": 512,
    "original_max_position_embeddings": 128, "sliding_window": 40, "rope_parameters": LONGROPE,
}  # fmt: skip
QUALITY = {f"quality.{figure}": None for figure in ("kl_mean", "kl_p99", "kl_max", "top1", "greedy_agreement")}
"""Not asked for: 4 bits cost a random model of 64 channels more than any real one."""


@pytest.fixture(scope="module")
def phi3(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phi3")
    random_model(PHI3).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.families
@pytest.mark.parametrize("context", [128, 256], ids=["short factors", "long factors"])
def test_phi_3_says_what_its_weights_say_in_transformers(phi3, tmp_path, context):
    bundles = satchel.export(phi3, DEVICES, context=context, effort="normal", output=tmp_path)
    tensors = bundles[0].manifest.weights.tensors
    assert {"layers.0.self_attn.q_proj", "layers.1.mlp.up_proj"} <= set(tensors), "each part of a fused tensor its own"
    for bundle in bundles:
        assert validate(bundle, limits=QUALITY).passed, bundle.manifest.plan.device


@pytest.mark.families
def test_openelm(tmp_path):
    folder = tmp_path / "openelm"
    folder.mkdir()
    tiny_openelm.save(folder, {"max_context_length": 256, "bos_token_id": 0, "eos_token_id": 0})
    save_tokenizer(folder)
    for bundle in satchel.export(folder, DEVICES, context=128, effort="normal", output=tmp_path):
        assert validate(bundle, limits=QUALITY).passed, bundle.manifest.plan.device


@pytest.mark.families
def test_phi_3_small(tmp_path):
    """Blocks of 16 tokens, so that at a context of 128 heads see different ones."""
    folder = tmp_path / "phi3small"
    folder.mkdir()
    options = {"blocksparse_block_size": 16, "vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0}
    tiny_phi3small.save(folder, options | {"hidden_size": 128, "ff_intermediate_size": 128})
    save_tokenizer(folder)
    for bundle in satchel.export(folder, DEVICES, context=128, effort="normal", output=tmp_path):
        assert validate(bundle, limits=QUALITY).passed, bundle.manifest.plan.device
        said = {choice.role: choice.value for choice in bundle.manifest.plan.choices}
        assert bundle.manifest.plan.format != "executorch" or said["attention"] == "masked_products"


def test_contexts_on_both_sides_of_the_switch_are_one_export_each(phi3, tmp_path, monkeypatch):
    from satchel.export import job

    contexts = iter((128, 256))
    plan = job.make_plan
    given = lambda *a, **k: plan(*a, **k | {"context": next(contexts)})  # noqa: E731
    monkeypatch.setattr(job, "make_plan", given)
    with pytest.raises(UsageError, match="both sides"):
        satchel.export(phi3, DEVICES[:2], output=tmp_path)
    assert not list(tmp_path.iterdir())
