"""moondream against the same model put together from transformers' SigLIP and Phi (tests/support/tiny_moondream.py)."""

import json

import numpy as np
import pytest
import torch
from tiny_moondream import moondream_folder, tiny_moondream
from tiny_vision import picture

import satchel
from satchel.runtime.errors import CheckpointError, UsageError
from satchel.runtime.images import prepare
from satchel.runtime.parity import validate

NO_QUALITY = {"quality.kl_mean": None, "quality.top1": None}
FIRST = {"activation": "gelu", "eps": 1e-6}
QUESTION = "What is this?"


def export(folder, output, device="pixel-9", form="onnx", weights="fp32"):
    options = {"format": form, "context": 256, "effort": "low"}
    (bundle,) = satchel.export(folder, device, weights=weights, output=output, **options)
    return bundle


@pytest.mark.parametrize(
    ("options", "saved", "form", "device"),
    [
        ({}, {}, "onnx", "pixel-9"),
        (FIRST, {"first": True}, "onnx", "pixel-9"),
        (FIRST, {"first": True}, "executorch", "pixel-9"),
        ({}, {"program": True}, "coreml", "iphone-15-pro"),
    ],
)
def test_logits(tmp_path, options, saved, form, device):
    """Whole chain, in each format; moondream1's exact GELU and epsilon are told from the later ones'."""
    model = tiny_moondream(**options)
    bundle = export(moondream_folder(tmp_path / "m", model, **saved), tmp_path, device, form)
    vision, shown = bundle.manifest.entry.vision, picture(50, 70)
    prepared = prepare(shown, vision.images)
    with satchel.load(bundle.folder) as session:
        ids = session.encode_chat([{"role": "user", "content": QUESTION}], images=[shown])
        assert ids.count(vision.tokens.id) == vision.tokens.rows == 16
        theirs = model.logits(ids, vision.tokens.id, torch.from_numpy(prepared.pixels))
        np.testing.assert_allclose(session.logits(ids, images=[shown]), theirs, atol=1e-4)
        plain = vision.tokens.expand(
            session.encode(vision.tokens.placed(QUESTION, 1)), [prepared], lambda t: session._encode_part(t)
        )
        assert plain == ids, "a plain prompt is the same question"
        turns = [("user", QUESTION), ("assistant", "Red"), ("user", "Why?")]
        ids = session.encode_chat([{"role": r, "content": c} for r, c in turns], images=[shown])
        text = session.tokenizer.decode(ids)
    assert text.count("Question: ") == 2
    assert text.rstrip().endswith("Answer:")
    if form == "onnx":
        report = validate(bundle, limits=NO_QUALITY)
        assert report.passed, report.to_json()["failures"]


def test_words_of_the_revisions(tmp_path):
    """As the published programs spell them: with tags and an end in text at first, with neither later."""
    found = {}
    for name, options, saved in (("first", FIRST, {"first": True}), ("last", {}, {})):
        bundle = export(moondream_folder(tmp_path / name, tiny_moondream(**options), **saved), tmp_path)
        with satchel.load(bundle.folder) as session:
            ids = session.encode_chat([{"role": "user", "content": QUESTION}], images=[picture(30, 30)])
            place = bundle.manifest.entry.vision.tokens.id
            found[name] = session.tokenizer.decode([i for i in ids if i != place], skip_special_tokens=False)
            ends = set(session._encode_part("<END>"))
            assert (name == "first") == (ends <= set(bundle.manifest.tokens.stop_ids))
    assert found == {
        "first": "<|bos|><image></image>\n\nQuestion: What is this?\n\nAnswer: ",
        "last": "<|bos|>\n\nQuestion: What is this?\n\nAnswer:",
    }


def test_a_users_text_is_no_picture(tmp_path):
    bundle = export(moondream_folder(tmp_path / "m", tiny_moondream()), tmp_path)
    tokens = bundle.manifest.entry.vision.tokens
    assert tokens.text == "<|image|>"
    with satchel.load(bundle.folder) as session:
        messages = [{"role": "user", "content": f"{tokens.text} and {tokens.text}"}]
        assert tokens.id not in session.encode_chat(messages)
        shown = session.encode_chat(messages, images=[picture(30, 30)])
        assert shown.count(tokens.id) == tokens.rows
        with pytest.raises(UsageError, match="roles"):
            session.encode_chat([{"role": "system", "content": "Be brief"}])


def test_what_is_not_covered_is_named(tmp_path):
    folder = moondream_folder(tmp_path / "m", tiny_moondream())
    config = json.loads((folder / "config.json").read_text())
    for change, says in (
        ({"architectures": ["HfMoondream"]}, "HfMoondream"),
        ({"text_config": None, "phi_config": config["text_config"]}, "revision"),
        ({"text_config": {**config["text_config"], "num_key_value_heads": 2}}, "queries a key"),
        ({"text_config": {**config["text_config"], "model_type": "llama"}}, "text model"),
        ({"vision_config": {**config["vision_config"], "unheard_of": 3}}, "unheard_of"),
    ):
        changed = {k: v for k, v in (config | change).items() if v is not None}
        (folder / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=says):
            export(folder, tmp_path / "out")
    (folder / "config.json").write_text(json.dumps(config))
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    name = "vision_encoder.projection.mlp.fc1.weight"
    tensors[name] = torch.cat([tensors[name]] * 2, 1)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="pieces"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
