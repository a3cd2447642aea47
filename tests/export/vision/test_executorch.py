"""Models that see in ExecuTorch: against transformers' own model, and ExecuTorch's own MultimodalRunner."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vision import PLACEHOLDER, picture, tiny_llava, tiny_smolvlm, vision_folder
from typer.testing import CliRunner

import satchel
from satchel.cli.app import app
from satchel.runtime.images import prepare
from satchel.runtime.inspect import inspect_path
from satchel.runtime.parity import validate
from satchel.runtime.pte import open_pte

NO_QUALITY = {"quality.kl_mean": None, "quality.top1": None}
QUESTION = [{"role": "user", "content": "What is this?"}]
METHODS = ["vision_encoder", "token_embedding", "text_decoder"]


def export(folder, output, weights="fp32", device="pixel-9", **options):
    options = {"format": "executorch", "context": 256, "effort": "low", **options}
    (bundle,) = satchel.export(folder, device, weights=weights, output=output, **options)
    return bundle


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    root = tmp_path_factory.mktemp("llava")
    return export(vision_folder(root / "llava"), root)


def whole(kind, model, ids, pixels):
    given = torch.from_numpy(pixels)
    return model(input_ids=torch.tensor([ids]), pixel_values=given[None] if kind == "smolvlm" else given).logits[0]


@pytest.mark.parametrize(("kind", "make"), [("llava", tiny_llava), ("smolvlm", tiny_smolvlm)])
def test_logits_are_those_of_transformers(llava, tmp_path, kind, make):
    """Prefill and decode, with a picture and without, from one session."""
    bundle = llava if kind == "llava" else export(vision_folder(tmp_path / kind, kind), tmp_path)
    model, shown = make(), picture(50, 70)
    with satchel.load(bundle.folder) as session:
        ids = session.encode_chat(QUESTION, images=[shown])
        theirs = whole(kind, model, ids, prepare(shown, bundle.manifest.entry.vision.images).pixels).numpy()
        np.testing.assert_allclose(session.logits(ids, images=[shown]), theirs, atol=1e-4)
        session._backend.reset()
        np.testing.assert_allclose(session._backend.prefill(ids), theirs[-1], atol=1e-4)
        without = model(input_ids=torch.tensor([ids])).logits[0].numpy()
        np.testing.assert_allclose(session.logits(ids), without, atol=1e-4, err_msg="the picture is forgotten")
        assert np.abs(without - theirs).max() > 0.1


@pytest.mark.parametrize(
    ("kind", "weights", "device", "options"),
    [
        ("llava", "palette", "pixel-9", {"text": "llama", "tie_word_embeddings": True}),
        ("smolvlm", "int4", "pixel-9", {}),
        ("smolvlm", "palette", "iphone-15-pro", {}),
    ],
)
def test_compressed_bundles_pass_validation(tmp_path, kind, weights, device, options):
    """By XNNPACK, and by the Core ML delegate, whose programs run in our interpreter here."""
    bundle = export(vision_folder(tmp_path / kind, kind, **options), tmp_path, weights, device)
    entry = bundle.manifest.entry
    assert entry.options["target"] == ("coreml" if device.startswith("iphone") else "xnnpack")
    report = validate(bundle, limits=NO_QUALITY, prompts=2)
    assert report.passed, report.to_json()["failures"]
    names = [t["name"] for t in inspect_path(bundle.folder, weights=True)["tensors"]]
    assert set(names) == set(bundle.manifest.weights.tensors)
    assert len(names) == len(set(names)), "a tied table is told once"
    with open_pte(bundle.folder / entry.path) as pte:
        assert [plan.name for plan in pte.plans] == METHODS
    Image.fromarray(picture(90, 60)).save(tmp_path / "cat.png")
    options = ["--image", str(tmp_path / "cat.png"), "--prompt", "What is this?", "--max-new-tokens", "2", "--json"]
    result = CliRunner().invoke(app, ["run", str(bundle.folder), *options])
    assert result.exit_code == 0, result.output
    assert "answer" in json.loads(result.stdout)


def test_a_tied_table_is_in_the_file_once(tmp_path):
    options = {"text": "llama", "tie_word_embeddings": True}
    tied, apart = (
        export(vision_folder(tmp_path / name, **given), tmp_path, "int8")
        for name, given in (("tied", options), ("apart", {"text": "llama"}))
    )
    sizes = [next(f.bytes for f in b.manifest.files if f.path == "model.pte") for b in (tied, apart)]
    assert sizes[1] - sizes[0] > 320 * 64


def test_same_input_same_bytes(llava, tmp_path):
    again = export(vision_folder(tmp_path / "llava"), tmp_path)
    digests = [hashlib.sha256((b.folder / "model.pte").read_bytes()).hexdigest() for b in (llava, again)]
    assert digests[0] == digests[1]


RUNNER = """
import json, sys
import numpy as np
import torch
import executorch.kernels.quantized
from executorch.extension.llm.custom_ops import custom_ops
from executorch.extension.llm.runner import GenerationConfig, MultimodalRunner, make_image_input, make_token_input
model, tokenizer, pixels, prompts = sys.argv[1:]
image = make_image_input(torch.from_numpy(np.load(pixels)))
for before, after in json.loads(prompts):
    runner, said = MultimodalRunner(model, tokenizer, None), []
    config = GenerationConfig(max_new_tokens=1, temperature=0.0, echo=False)
    runner.generate([make_token_input(before), image, make_token_input(after)], config, said.append)
    print("SAID", json.dumps("".join(said)))
"""


def test_executorch_s_own_runner_says_the_same(llava, tmp_path):
    """Its binding passes on whole UTF-8 characters only, so that first ids of letters are compared."""
    shown, prompts, wanted = picture(50, 70), [], []
    with satchel.load(llava.folder) as session:
        np.save(tmp_path / "pixels.npy", prepare(shown, llava.manifest.entry.vision.images).pixels)
        for last in range(7, 250):
            if len(wanted) == 2:
                break
            ids = [5, PLACEHOLDER, last, 8]
            (first,) = session.generate_ids(ids, images=[shown], max_new_tokens=1, stop_ids=(), temperature=0)
            text = session.tokenizer.decode([first])
            if text and text.isascii() and text.isprintable() and text not in wanted:
                prompts.append([[5], [last, 8]])
                wanted.append(text)
    paths = [str(llava.folder / "model.pte"), str(llava.folder / "tokenizer.json"), str(tmp_path / "pixels.npy")]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *paths, json.dumps(prompts)], capture_output=True, text=True, check=True
    )
    said = [json.loads(line.split("SAID ", 1)[1]) for line in done.stdout.splitlines() if "SAID " in line]
    assert len(said) == 2
    assert said == wanted
