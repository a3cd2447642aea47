"""Budgets from the command to the bundle: sizes and losses are kept, and what was measured serves every budget."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from tiny_folder import tiny_folder
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

import satchel
from satchel.cli.app import app
from satchel.export.bundle_size import other_bytes
from satchel.export.job import open_model
from satchel.export.recipes.recipe_file import load_recipe
from satchel.export.sensitivity import sensitivity
from satchel.runtime.errors import UsageError
from satchel.runtime.inspect import inspect_path
from satchel.runtime.metrics import kl
from satchel.runtime.session import load

DEVICES = {
    ("coreml", "palette"): "iphone-15-pro", ("onnx", "palette"): "pixel-9", ("onnx", "int4"): "pixel-9",
    ("executorch", "int4"): "raspberry-pi-5", ("executorch", "palette"): "iphone-15-pro",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("tiny") / "tiny", hidden=128, intermediate=256, heads=8, kv_heads=4)


@pytest.fixture(scope="module")
def common(tmp_path_factory):
    """Options of all exports; what was measured is kept for all."""
    shared = tmp_path_factory.mktemp("work")
    text = shared / "text.txt"
    text.write_text("".join(f"{n} bottles of beer on the wall, {n} bottles of beer. " for n in range(60)))
    return {"context": 256, "calibration": text, "work": shared / "work"}


@pytest.fixture(scope="module")
def export(folder, common):
    def run(output, form="onnx", weights="palette", **options):
        options = common | options
        device = options.pop("device", None) or DEVICES[form, weights]
        return satchel.export(folder, device, format=form, weights=weights, output=output, **options)[0]

    return run


@pytest.fixture(scope="module")
def ask(folder):
    """The mean KL divergence of a bundle from transformers on random ids."""
    ids = np.random.default_rng(5).integers(3, 260, 200)
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(folder)(torch.from_numpy(ids[None])).logits[0].numpy()

    def run(bundle):
        with load(bundle.folder) as session:
            return kl(reference, session.logits(ids.tolist())).mean()

    return run


def weights_of(bundle) -> dict[str, str]:
    return {t["name"]: t["sha256"] for t in inspect_path(bundle.folder, weights=True)["tensors"]}


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize(("form", "weights"), DEVICES)
def test_a_bundle_keeps_within_its_size(form, weights, folder, export, tmp_path):
    shapes = open_model(folder).config.matrix_shapes()
    linears = sum(r * c for name, (r, c) in shapes.items() if name.startswith("layers."))
    plan = export(tmp_path / "plan", form, weights, effort="low").manifest.plan
    other = other_bytes(open_model(folder), plan)
    found = []
    for bits in (2.6, 4.8) if weights == "palette" else (4.56, 6.5):
        limit = other + int(linears * bits / 8)
        found.append(export(tmp_path / str(bits), form, weights, max_size=limit))
        told = found[-1].manifest.weights.selection
        assert found[-1].bytes <= limit and told.budget == f"at most {limit / 1e6:.1f} MB"
        assert bits - 0.5 < told.average_bits <= bits
        assert sum(told.counts.values()) == 14 and told.correction != 1
    losses = [bundle.manifest.weights.selection.expected_kl for bundle in found]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2
    with pytest.raises(UsageError, match="cannot be made so small"):
        export(tmp_path / "none", form, weights, max_size=other + int(linears * 2 / 8))
    assert not (tmp_path / "none").exists()


def test_more_bytes_lose_less_as_transformers_measures_it(export, ask, tmp_path):
    bundles = [export(tmp_path / str(bits), bits=bits) for bits in (2, 3, 4, 6, 8)]
    measured = [ask(bundle) for bundle in bundles]
    assert all(wide < narrow / 1.5 for narrow, wide in pairwise(measured)), measured
    assert [b.bytes for b in bundles] == sorted(b.bytes for b in bundles)
    for bits, bundle in zip((2, 3, 4, 6, 8), bundles, strict=True):
        schemes = {s for name, s in bundle.manifest.weights.tensors.items() if name.startswith("layers.")}
        assert schemes == {"int8" if bits == 8 else f"palette{bits}"}
        assert bundle.manifest.weights.selection.counts == {str(bits): 14}


def test_a_loss_is_kept(export, ask, tmp_path):
    found = {limit: export(tmp_path / str(limit), max_kl=limit) for limit in (0.02, 0.1)}
    for limit, bundle in found.items():
        told = bundle.manifest.weights.selection
        assert 0.3 * limit < told.expected_kl <= limit and told.correction != 1
        assert ask(bundle) < 4 * limit  # on ids that are no text at all
    assert found[0.02].bytes > found[0.1].bytes
    with pytest.raises(UsageError, match="loses more than it may"):
        export(tmp_path / "none", max_kl=1e-7)


def test_what_was_measured_serves_every_budget_and_changes_nothing(export, tmp_path):
    stages = set()
    export(tmp_path / "other", max_kl=0.05)  # measures, where no other test of this process has
    options = {"max_kl": 0.1, "progress": lambda stage, done, total: stages.add(stage)}
    again = export(tmp_path / "again", **options)
    assert "Measuring curvature" not in stages
    fresh = export(tmp_path / "fresh", work=tmp_path / "work", **options)
    assert "Measuring curvature" in stages and hashes(again.folder) == hashes(fresh.folder)


@pytest.mark.parametrize(("form", "weights"), [("onnx", "palette"), ("onnx", "int4")])
def test_a_recipe_of_what_was_chosen_gives_the_same_weights(form, weights, folder, common, export, tmp_path):
    chosen = export(tmp_path / "chosen", form, weights, max_kl=0.05)
    found = sensitivity(folder, DEVICES[form, weights], format=form, weights=weights, max_kl=0.05, **common)
    (tmp_path / "chosen.toml").write_text(found.recipe())
    settled = export(tmp_path / "settled", form, None, device=DEVICES[form, weights], recipe=tmp_path / "chosen.toml")
    assert weights_of(settled) == weights_of(chosen)
    forms = chosen.manifest.weights.selection.counts
    assert len(forms) > 1 and settled.manifest.weights.selection.counts == forms
    assert settled.manifest.weights.selection.budget == ""
    assert found.selection.summary() == chosen.manifest.weights.selection


def test_the_command_prints_plots_and_writes(folder, common, tmp_path):
    plot, recipe = tmp_path / "plot.svg", tmp_path / "chosen.toml"
    options = ["--device", "pixel-9", "--max-kl", 0.05]
    options += [part for key, value in common.items() for part in (f"--{key}", value)]
    asked = ["sensitivity", *map(str, [folder, *options])]
    done = CliRunner().invoke(app, [*asked, "--plot", str(plot), "--recipe-out", str(recipe)])
    assert done.exit_code == 0, done.output
    for words in ("down_proj", "layers.0.self_attn.v_proj", "bits a weight; expected KL", "Bits chosen"):
        assert words in done.stdout
    assert len(ElementTree.parse(plot).findall(".//{*}rect[@class='cell']")) == 14
    assert load_recipe(recipe).weights == "palette"
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    worst = max(told["linears"], key=lambda linear: linear["costs"]["4"]["loss"])["name"]
    rows = done.stdout[done.stdout.index("What hurts most") :].splitlines()
    assert next(line for line in rows if "layers." in line).split()[0] == worst
    refused = CliRunner().invoke(app, ["sensitivity", str(folder), "--plot", "x.bmp"])
    assert refused.exit_code == 2 and sorted(tmp_path.iterdir()) == [recipe, plot]
