"""Golden layers: what transformers has behind each layer, held to what the written programs have there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_folder import tiny_folder

import satchel
from satchel.export.golden_layers import layer_outputs
from satchel.export.reference import Reference
from satchel.runtime.bundle import open_bundle
from satchel.runtime.errors import BundleError, UsageError
from satchel.runtime.golden import Golden
from satchel.runtime.golden_layers import MOST_ROWS, STRUCTURE
from satchel.runtime.parity import Run, validate

EXACT, HALF = 1e-5, 2e-3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("layers") / "tiny")


def exported(model: Path, device: str, weights: str, name: str, wanted: bool = True) -> Path:
    (bundle,) = satchel.export(
        model, device, weights=weights, context=96, effort="low", output=model.parent / name, golden_layers=wanted
    )
    return bundle.folder


@pytest.fixture(scope="module")
def onnx(model: Path) -> Path:
    return exported(model, "pixel-9", "fp32", "onnx")


def test_layers_are_what_transformers_says(model: Path, onnx: Path):
    golden = Golden.read(onnx / "golden")
    assert golden.layers is not None
    sequence = golden.prompts[0].sequence
    with Reference(model) as reference:
        import torch

        with torch.inference_mode():
            hidden = reference.model(torch.tensor([sequence]), output_hidden_states=True).hidden_states
        found = layer_outputs(reference, sequence)
        assert len(hidden) == reference.config.layers + 1 == golden.layers.layers + 1
        for layer in range(reference.config.layers - 1):  # what transformers gives for the last one is normed
            np.testing.assert_array_equal(found[layer], hidden[layer + 1][0].numpy())
        last = reference.model.get_submodule("model.norm")(torch.tensor(found[-1]))
        np.testing.assert_allclose(last.detach().numpy(), hidden[-1][0].numpy(), rtol=1e-5, atol=1e-6)
    assert len(golden.layers.rows) == MOST_ROWS and golden.layers.rows[0] == 0
    np.testing.assert_allclose(golden.layers.states["reference"], found[:, list(golden.layers.rows)], rtol=1e-6)


def test_an_onnx_program_has_them_and_its_model_is_the_same_without(model: Path, onnx: Path):
    found = validate(onnx, prompts=1, layers=True).layers["onnxruntime"]
    assert found.rows == Golden.read(onnx / "golden").layers.rows  # type: ignore[union-attr]
    assert all(e is not None and e < EXACT for errors in found.error.values() for e in errors)
    plain = exported(model, "pixel-9", "fp32", "plain", wanted=False)
    assert not validate(plain, prompts=1, layers=True).layers and not (plain / "golden" / STRUCTURE).exists()
    for name in ("model.onnx", "model.onnx.data"):
        assert (plain / name).read_bytes() == (onnx / name).read_bytes()
    assert (onnx / "layers.onnx").stat().st_size < 2 * (onnx / "model.onnx").stat().st_size


def test_a_core_ml_program_has_them_and_a_layer_that_is_off_is_named(model: Path):
    bundle = exported(model, "iphone-15-pro", "palette", "coreml")
    assert not (bundle / "layers.onnx").exists()
    right = validate(bundle, prompts=1, layers=True, precisions=("fp32",)).layers["interpreter fp32"].error
    assert all(0 < e < HALF for e in right["lowering"]), right  # type: ignore[operator]
    assert all(e > 0.05 for e in right["quality"]), "a palette of a tiny random model loses much"  # type: ignore[operator]
    opened = open_bundle(bundle)
    layers = opened.golden.layers
    assert layers is not None
    layers.states["weights"][1] *= 2  # as if the second layer of this device were off
    wrong = validate(opened, prompts=1, layers=True, precisions=("fp32",)).layers["interpreter fp32"].error["lowering"]
    assert wrong[0] == right["lowering"][0] and wrong[1] > 0.4  # type: ignore[operator]


def test_packages_of_one_layer_each_are_a_chain_of_layers(model: Path):
    (bundle,) = satchel.export(
        model, "iphone-15-pro", weights="fp16", context=96, effort="low", overrides={"chunks": "2"},
        output=model.parent / "chunks", golden_layers=True,
    )  # fmt: skip
    assert [chunk.layers for chunk in bundle.manifest.entry.chunks or ()][-2:] == [1, 1]
    found = validate(bundle, prompts=1, layers=True, precisions=("fp32",)).layers["interpreter fp32"].error["lowering"]
    assert len(found) == 2 and all(e is not None and e < HALF for e in found)


def test_parallel_branches_have_a_layer_too(tmp_path: Path):
    from transformers import PhiConfig, PhiForCausalLM

    config = PhiConfig(
        vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=128, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    PhiForCausalLM(config).eval().save_pretrained(tmp_path / "phi")
    (bundle,) = satchel.export(
        tmp_path / "phi", "pixel-9", weights="fp32", tokenizer=False, output=tmp_path, golden_layers=True
    )
    found = (
        validate(bundle, runs=[Run("onnxruntime", "fp32")], prompts=1, layers=True)
        .layers["onnxruntime"]
        .error["quality"]
    )
    assert len(found) == 3 and all(e is not None and e < EXACT for e in found)


def test_where_it_cannot_be_had_it_is_refused(model: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"ONNX and Core ML.*executorch"):
        satchel.export(model, "raspberry-pi-5", format="executorch", output=tmp_path / "out", golden_layers=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema_version=2), "unknown schema"),
        (lambda v: v.update(rows=[0]), "impossible shape"),
        (lambda v: v.update(rows=[0, 0, 1, 2, 3, 4, 5, 6]), "impossible rows"),
        (lambda v: v.update(rows=[0, 1, 2, 3, 4, 5, 6, 10**6]), "beyond the first prompt"),
        (lambda v: v["sets"].pop("reference"), "lacks the reference"),
        (lambda v: v["sets"]["reference"].update(file="../manifest.json"), "unexpected array"),
        (lambda v: v["sets"]["reference"].update(shape=[2**40, 8, 2**40]), "wrong size"),
    ],
)
def test_damaged_layers_are_refused(onnx: Path, tmp_path: Path, change, message):
    folder = Path(shutil.copytree(onnx / "golden", tmp_path / "golden"))
    value = json.loads((folder / STRUCTURE).read_text())
    change(value)
    (folder / STRUCTURE).write_text(json.dumps(value))
    with pytest.raises(BundleError, match=message):
        Golden.read(folder)
