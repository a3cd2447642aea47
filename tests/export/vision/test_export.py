"""From a checkpoint of a model that sees to a bundle that answers about a picture, against transformers' own model."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vision import PLACEHOLDER, picture, tiny_llava, tiny_smolvlm, vision_folder
from typer.testing import CliRunner

import satchel
from satchel.cli.app import app
from satchel.runtime.errors import BundleError, CheckpointError, PlanError, UsageError
from satchel.runtime.images import prepare
from satchel.runtime.inspect import inspect_path
from satchel.runtime.manifest import Manifest
from satchel.runtime.parity import validate

NO_QUALITY = {"quality.kl_mean": None, "quality.top1": None}
QUESTION = "What is this?"


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """LLaVA with Phi and SmolVLM in fp32; LLaVA with a Llama whose head is tied, as palettes."""
    root, found = tmp_path_factory.mktemp("seeing"), {}
    tied = {"text": "llama", "tie_word_embeddings": True}
    for name, kind, weights, options in (
        ("llava", "llava", "fp32", {}), ("smolvlm", "smolvlm", "fp32", {}), ("palette", "llava", "palette", tied),
    ):  # fmt: skip
        folder = vision_folder(root / name, kind, **options)
        (found[name],) = export(folder, root, weights)
    return found


def export(folder, output, weights="fp32", **options):
    options = {"format": "onnx", "context": 256, "effort": "low", **options}
    return satchel.export(folder, "pixel-9", weights=weights, output=output, **options)


def whole(kind, model, ids, bundle, shown):
    """Logits of transformers' one call with pixels."""
    prepared = prepare(shown, bundle.manifest.entry.vision.images)
    pixels = torch.from_numpy(prepared.pixels)
    given = pixels[None] if kind == "smolvlm" else pixels
    return model(input_ids=torch.tensor([ids]), pixel_values=given).logits[0].numpy(), prepared


@pytest.mark.parametrize(("kind", "make"), [("llava", tiny_llava), ("smolvlm", tiny_smolvlm)])
def test_logits_are_those_of_transformers(bundles, kind, make):
    """The whole chain: our preparation, encoder, embedding and decoder, and transformers' one call."""
    bundle, model, shown = bundles[kind], make(), picture(50, 70)
    with satchel.load(bundle.folder) as session:
        ids = session.encode_chat([{"role": "user", "content": QUESTION}], images=[shown])
        theirs, prepared = whole(kind, model, ids, bundle, shown)
        assert ids.count(PLACEHOLDER) == len(prepared.pixels) * bundle.manifest.entry.vision.tokens.rows
        assert len(prepared.pixels) == (5 if kind == "smolvlm" else 1)
        np.testing.assert_allclose(session.logits(ids, images=[shown]), theirs, atol=1e-4)
        assert len(list(session.generate_ids(ids[-5:], max_new_tokens=3, stop_ids=()))) == 3
        without = model(input_ids=torch.tensor([ids])).logits[0].numpy()
        np.testing.assert_allclose(session.logits(ids), without, atol=1e-4, err_msg="the picture is forgotten")
        assert np.abs(without - theirs).max() > 0.1


@pytest.mark.parametrize("kind", ["llava", "smolvlm", "palette"])
def test_bundles_pass_validation_and_answer(bundles, kind, tmp_path):
    bundle = bundles[kind]
    report = validate(bundle, limits=NO_QUALITY)
    assert report.passed, report.to_json()["failures"]
    assert report.value("onnxruntime", "lowering", "vision", "pixels_difference") == 0
    assert any(prompt.picture for prompt in bundle.golden.prompts)
    assert not all(prompt.picture for prompt in bundle.golden.prompts)
    names = {t["name"] for t in inspect_path(bundle.folder, weights=True)["tensors"]}
    assert set(bundle.manifest.weights.tensors) == names
    assert (kind == "palette") == ("lm_head" not in names), "a tied head is the embedding's bytes"
    Image.fromarray(picture(90, 60)).save(tmp_path / "cat.png")
    options = ["--image", str(tmp_path / "cat.png"), "--prompt", QUESTION, "--max-new-tokens", "3", "--json"]
    for further in ([], ["--raw"]):
        result = CliRunner().invoke(app, ["run", str(bundle.folder), *options, *further])
        assert result.exit_code == 0, result.output
        assert "answer" in json.loads(result.stdout)


@pytest.mark.parametrize(("kind", "layout"), [("llava", "channels_first"), ("smolvlm", "plain")])
def test_core_ml(tmp_path, kind, layout):
    """Through our interpreter; the same weights as in ONNX, and the same chain."""
    folder, weights = vision_folder(tmp_path / kind, kind), "palette" if kind == "smolvlm" else "fp32"
    options = {"format": "coreml", "context": 256, "effort": "low", "overrides": {"layout": layout}}
    (bundle,) = satchel.export(folder, "iphone-15-pro", weights=weights, output=tmp_path, **options)
    assert bundle.manifest.entry.options["layout"] == layout
    report = validate(bundle, limits=NO_QUALITY, prompts=3)
    assert report.passed, report.to_json()["failures"]
    names = {t["name"] for t in inspect_path(bundle.folder, weights=True)["tensors"]}
    assert set(bundle.manifest.weights.tensors) == names
    shown = picture(50, 70)
    with satchel.load(bundle.folder) as session:
        assert "".join(session.generate(QUESTION, images=[shown], max_new_tokens=3)) is not None
        if weights == "fp32":
            ids = session.encode_chat([{"role": "user", "content": QUESTION}], images=[shown])
            pixels = prepare(shown, bundle.manifest.entry.vision.images).pixels
            theirs = tiny_llava()(input_ids=torch.tensor([ids]), pixel_values=torch.from_numpy(pixels)).logits[0]
            np.testing.assert_allclose(session.logits(ids, images=[shown]), theirs.numpy(), atol=1e-4)


def test_several_pictures(bundles):
    """Two of different shapes in one prompt, in order; one that is named where it stands, and one too many."""
    bundle, model, shown = bundles["llava"], tiny_llava(), [picture(50, 70), picture(90, 40, seed=3)]
    how = bundle.manifest.entry.vision.images
    parts = [{"type": "text", "text": "First"}, {"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}]
    with satchel.load(bundle.folder) as session:
        for messages in ([{"role": "user", "content": QUESTION}], [{"role": "user", "content": parts}]):
            ids = session.encode_chat(messages, images=shown)
            pixels = torch.from_numpy(np.concatenate([prepare(p, how).pixels for p in shown]))
            theirs = model(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0].numpy()
            np.testing.assert_allclose(session.logits(ids, images=shown), theirs, atol=1e-4)
        turned = session.logits(ids, images=shown[::-1])
        assert np.abs(turned - theirs).max() > 0.01, "their order counts"
        with pytest.raises(UsageError, match="placeholder"):
            session.encode_chat([{"role": "user", "content": parts}], images=shown[:1])


def test_a_placeholder_that_is_no_control_token_becomes_one(tmp_path):
    """So that a user who spells it out writes text, in a tokenizer that would take it for the placeholder."""
    folder = vision_folder(tmp_path / "llava")
    spec = json.loads((folder / "tokenizer.json").read_text())
    for token in spec["added_tokens"]:
        token["special"] = token["special"] and token["id"] != PLACEHOLDER
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    (bundle,) = export(folder, tmp_path)
    with satchel.load(bundle.folder) as session:
        assert PLACEHOLDER not in session.encode_chat([{"role": "user", "content": "<image> or not"}])


def test_damage_to_the_encoder_shows(bundles, tmp_path):
    """Another picture's pixels, and an encoder whose weights moved: validation says which part it is."""
    bundle = bundles["llava"]
    folder = shutil.copytree(bundle.folder, tmp_path / bundle.folder.name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["entry"]["vision"]["images"]["filter"] = "nearest"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    report = validate(folder, limits=NO_QUALITY)
    assert {("vision", "pixels_difference"), ("vision", "features_error")} <= {
        (row.route, row.figure) for row in report.failures
    }
    golden = folder / "golden" / "reference.features.f32"
    golden.write_bytes(golden.read_bytes()[:-4])
    for entry in manifest["files"]:
        if entry["path"] == "golden/reference.features.f32":
            entry |= {"bytes": golden.stat().st_size, "sha256": hashlib.sha256(golden.read_bytes()).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"features\.f32"):
        validate(folder)


def test_same_input_same_bytes(bundles, tmp_path):
    bundle = bundles["llava"]
    folder = vision_folder(tmp_path / "llava")
    (again,) = export(folder, tmp_path)
    assert (again.folder / "manifest.json").read_bytes() == (bundle.folder / "manifest.json").read_bytes()


def test_without_a_tokenizer(tmp_path):
    folder = vision_folder(tmp_path / "llava")
    (folder / "tokenizer.json").unlink()
    (bundle,) = export(folder, tmp_path, tokenizer=False)
    assert validate(bundle, limits=NO_QUALITY).passed
    with satchel.load(bundle.folder) as session:
        once, twice = (
            list(session.generate_ids([5, PLACEHOLDER, 9], images=[picture(30, 30, seed)], max_new_tokens=4))
            for seed in (1, 1)
        )
        assert once == twice


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("tokens", "id"), 320),
        (("tokens", "rows"), 0),
        (("encoder", "path"), "../vision.onnx"),
        (("encoder", "path"), "other.onnx"),
        (("images", "resize"), "stretch"),
        (("images", "std"), [0.5, 0.5]),
        (("images", "height"), 1 << 30),
        (("images", "filter"), "__class__"),
    ],
)
def test_hostile_manifests_are_refused(bundles, tmp_path, keys, value):
    manifest = json.loads((bundles["llava"].folder / "manifest.json").read_text())
    manifest["entry"]["vision"][keys[0]][keys[1]] = value
    with pytest.raises(BundleError):
        Manifest.from_bytes(json.dumps(manifest).encode())


def test_what_cannot_be_done_is_named(bundles, tmp_path):
    folder = vision_folder(tmp_path / "llava")
    old = {"target": "iOS17"}
    with pytest.raises(PlanError, match="several"):
        satchel.export(folder, "iphone-12", format="coreml", output=tmp_path / "out", effort="low", overrides=old)
    with pytest.raises(UsageError, match="does not fit"):
        export(folder, tmp_path / "out", context=48)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="how pictures are prepared"):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    bundle = bundles["llava"]
    with satchel.load(bundle.folder) as session:
        with pytest.raises(UsageError, match="placeholder"):
            list(session.generate("<image> and <image>", images=[picture(9, 9)]))
        with pytest.raises(UsageError, match="placeholder"):
            list(session.generate("<image>"))
        text = "".join(session.chat([{"role": "user", "content": "<image>"}], max_new_tokens=2))
        assert isinstance(text, str), "a placeholder that a user spells out is text"
