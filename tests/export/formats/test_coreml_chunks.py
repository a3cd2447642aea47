"""A model over several packages is the model in one: the same numbers, weights and bytes; and no other chain passes."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coreml_caller import INFO, coreml_plan
from hypothesis import given
from hypothesis import strategies as st
from numpy_bundle import manifest
from tiny_folder import tiny_folder
from tiny_llama import tiny_llama, weights_of
from tiny_phi import tiny_phi

import satchel
from satchel.devices.plan import Plan
from satchel.export.bundle_size import other_bytes
from satchel.export.families.base import DecoderConfig
from satchel.export.formats import coreml, mlpackage
from satchel.export.formats.coreml_chunks import balanced
from satchel.export.job import open_model
from satchel.export.ops.base import Weights
from satchel.runtime import mil
from satchel.runtime.backends import coreml_runners
from satchel.runtime.backends.coreml import CoremlBackend
from satchel.runtime.bundle import open_bundle
from satchel.runtime.coreml.checks import check_package
from satchel.runtime.errors import BundleError, PlanError
from satchel.runtime.inspect import entry_weights, inspect_path
from satchel.runtime.manifest import FileEntry, Manifest, ModelEntry, WeightSchemes
from satchel.runtime.parity import validate

IDS = np.random.default_rng(0).integers(0, 256, 24).tolist()
LAYERS = 3
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "engine": ("palette", {}),
    "gpu": ("palette", {"layout": "plain", "attention": "fused_sdpa", "lm_head": "whole"}),
    "iOS17": ("palette", {"target": "iOS17"}),
    "fp32": ("fp32", {"cache": "io", "lm_head": "whole"}),
}
TOLERANCE = {"palette": 1e-2, "fp32": 1e-4}  # as in tests/runtime/backends/test_coreml.py


def model(tiny: Callable[..., Any], scheme: str) -> tuple[Any, DecoderConfig, Weights]:
    reference, config = tiny(layers=LAYERS)
    return reference, config, weights_of(reference, config, scheme)


def written(folder: Path, config: DecoderConfig, weights: Weights, chunks: int, **roles: str) -> ModelEntry:
    folder.mkdir(parents=True)
    return coreml.write(folder, weights, config, coreml_plan(chunks=str(chunks), **roles), INFO)


def answers(folder: Path, entry: ModelEntry, precision: str = "fp32") -> np.ndarray:
    """Logits after 13 ids by prefill (the last call padded), 7 steps, and 4 more by prefill."""
    backend = CoremlBackend(folder, entry, precision=precision)
    backend.prefill(IDS[3:9])
    backend.reset()
    rows = [backend.prefill(IDS[:13]), *(backend.step(i) for i in IDS[13:20]), backend.prefill(IDS[20:])]
    assert backend.overflow is None
    return np.stack(rows)


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Op by op in numpy: onnxruntime fuses ops, others where a program ends earlier, and rounds otherwise by it."""
    monkeypatch.setattr(coreml_runners, "load", partial(mil.load, kernels="numpy"))


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("tiny", [tiny_llama, tiny_phi])
def test_the_chain_computes_what_the_one_package_does(tmp_path: Path, tiny: Callable[..., Any], form: str) -> None:
    scheme, roles = FORMS[form]
    reference, config, weights = model(tiny, scheme)
    with torch.no_grad():
        want = reference(torch.tensor([IDS])).logits[0].numpy()[[*range(12, 20), 23]]
    entries = {n: written(tmp_path / str(n), config, weights, n, **roles) for n in (1, 2, LAYERS)}
    for precision in ("fp32", "fp16"):
        found = {n: answers(tmp_path / str(n), entry, precision) for n, entry in entries.items()}
        if precision == "fp32":
            np.testing.assert_allclose(found[1], want, atol=TOLERANCE[scheme], rtol=0)
        for n in (2, LAYERS):
            np.testing.assert_array_equal(found[n], found[1])
    digests = {n: [r.to_json() | {"bytes": 0} for r in entry_weights(tmp_path / str(n), e)] for n, e in entries.items()}
    assert [d["name"] for d in digests[1]] == list(config.matrix_shapes())
    assert digests[1] == digests[2] == digests[LAYERS]


def test_fused_kernels_round_otherwise_and_a_memory_limit_does_not(tmp_path: Path) -> None:
    _, config, weights = model(tiny_llama, "palette")
    entries = {n: written(tmp_path / str(n), config, weights, n) for n in (1, LAYERS)}
    one, chain = (answers(tmp_path / str(n), entry) for n, entry in entries.items())
    np.testing.assert_allclose(chain, one, atol=1e-5, rtol=0)
    limited = CoremlBackend(tmp_path / str(LAYERS), entries[LAYERS], max_memory=30_000)
    np.testing.assert_allclose(limited.prefill(IDS[:13]), one[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("roles", [{}, {"target": "iOS17"}, {"layout": "plain", "tied_head": "duplicated"}])
def test_coremltools_finds_the_signature_that_the_manifest_has(tmp_path: Path, roles: dict[str, str]) -> None:
    _, config, weights = model(tiny_llama, "palette")
    entry = written(tmp_path / "a", config, weights, 2, **roles)
    assert [c.layers for c in entry.chunks or () if c.layers] == [2, 1] or roles  # a copy weighs on the last alone
    assert {s.name for s in (*entry.inputs, *entry.outputs)} == {"inputIds", "position", "logits"}
    for chunk in entry.chunks or ():
        spec = ct.models.MLModel(str(tmp_path / "a" / chunk.path), skip_model_load=True).get_spec()
        assert spec.description.metadata.shortDescription.endswith("of 2)")
        several = {f.name: f for f in spec.description.functions}
        for role, length in (("decode", 1), ("prefill", 8)) if several else (("decode", 1),):
            described = several.get(chunk.functions[role], spec.description)
            assert all(f.shortDescription for f in (*described.input, *described.output, *described.state))
            for kind in ("input", "output", "state"):
                features = [(f.name, shape_of(f)) for f in getattr(described, kind)]
                specs = {"input": chunk.inputs, "output": chunk.outputs, "state": chunk.states}[kind]
                wanted = [(s.name, at_length(s.name, s.shape, length, entry)) for s in specs]
                assert sorted(features) == sorted(wanted)


def shape_of(feature: Any) -> tuple[int, ...]:
    kind = feature.type.stateType.arrayType if feature.type.HasField("stateType") else feature.type.multiArrayType
    return tuple(kind.shape)


def at_length(name: str, shape: tuple[Any, ...], length: int, entry: ModelEntry) -> tuple[int, ...]:
    """A shape of decode as it is with more tokens; outputs' shapes are not described for several functions."""
    axis = {"inputIds": 1, "logits": 1, "presentKeys": 2, "presentValues": 2}.get(name)
    if name.lower().endswith("hiddenstates"):
        axis = 3 if entry.options["layout"] == "channels_first" else 1
    return tuple(length if i == axis else int(d) for i, d in enumerate(shape))


def test_a_tied_table_is_stored_once_where_functions_can_share_it(tmp_path: Path) -> None:
    reference, config = tiny_llama(layers=LAYERS, vocab=4096)
    weights = weights_of(reference, config, "palette")
    table = 4096 * 64

    def size(name: str, chunks: int, **roles: str) -> int:
        written(tmp_path / name, config, weights, chunks, **roles)
        return sum(path.stat().st_size for path in (tmp_path / name).glob(f"*/{mlpackage.WEIGHTS}"))

    one = size("one", 1)
    assert 0 <= size("shared", 3) - one < 0.3 * table  # rotary tables and masks, in each package
    assert table * 0.99 < size("duplicated", 3, tied_head="duplicated") - one < 1.3 * table
    assert table * 0.99 < size("iOS17", 3, target="iOS17") - one < 1.3 * table


def test_the_same_model_is_the_same_bytes_and_progress_reaches_its_end(tmp_path: Path) -> None:
    _, config, weights = model(tiny_llama, "palette")
    told: list[tuple[str, int, int]] = []
    for name in "ab":
        (tmp_path / name).mkdir()
        plan = coreml_plan(chunks="2")
        coreml.write(tmp_path / name, weights, config, plan, INFO, lambda *step: told.append(step))
    files = [
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.*") if p.is_file()} for n in "ab"
    ]
    assert files[0] == files[1] and len(files[0]) == 2 * 3
    assert [step[1:] for step in told] == [(i, 10) for i in range(1, 11)] * 2


def test_no_chunk_breaks_a_rule_that_the_one_package_keeps(tmp_path: Path) -> None:
    _, config, weights = model(tiny_llama, "palette")
    broken = {}
    for n in (1, 2):
        entry = written(tmp_path / str(n), config, weights, n)
        reports = [check_package(tmp_path / str(n) / path, "iphone-15-pro") for path in entry.paths]
        broken[n] = {group[0].rule.id for report in reports for group in report.grouped()}
    assert broken[2] <= broken[1]


@pytest.mark.parametrize("chunks", ["0", "4", "65", "-1", "two", "1.5", "²"])
def test_so_many_chunks_cannot_be(tmp_path: Path, chunks: str) -> None:
    _, config, weights = model(tiny_llama, "palette")
    with pytest.raises(PlanError, match="chunks"):
        coreml.write(tmp_path, weights, config, coreml_plan(chunks=chunks), INFO)
    assert not list(tmp_path.iterdir())


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.data())
def test_cuts_are_the_best_of_all(sizes: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(sizes)))

    def cost(cuts: tuple[int, ...]) -> tuple[int, int]:
        pieces = [sum(sizes[a:b]) for a, b in itertools.pairwise(cuts)]
        return max(pieces), sum(p**2 for p in pieces)

    ways = [(0, *inner, len(sizes)) for inner in itertools.combinations(range(1, len(sizes)), count - 1)]
    assert cost(tuple(balanced(sizes, count))) == min(map(cost, ways))


# --- manifests ---


@pytest.fixture(scope="module", params=["iOS17", "iOS18"])
def good(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A manifest of three packages; on iOS18 the last one looks up the ids too."""
    folder = tmp_path_factory.mktemp("chunks") / "a"
    _, config, weights = model(tiny_llama, "palette")
    entry = written(folder, config, weights, 3, target=request.param)
    files = tuple(FileEntry(p.relative_to(folder).as_posix(), 1, "0" * 64) for p in sorted(folder.rglob("*.*in")))
    plan = Plan("iphone", "coreml", entry.context_length, entry.prefill_length, ())
    schemes = WeightSchemes("palette", dict.fromkeys(config.matrix_shapes(), "palette4"))
    return replace(manifest(), entry=entry, plan=plan, files=files, weights=schemes)


def test_the_chain_is_read_back_from_the_manifest(good: Manifest) -> None:
    assert Manifest.from_bytes(good.to_bytes()) == good
    assert len(good.entry.paths) == 3 and good.entry.path == (good.entry.chunks or ())[0].path


def swapped(chunks: list[Any], a: int, b: int) -> None:
    chunks[a], chunks[b] = chunks[b], chunks[a]


HOSTILE: dict[str, Callable[[dict[str, Any], list[Any]], object]] = {
    "first missing": lambda m, c: c.pop(0),
    "middle missing": lambda m, c: c.pop(-2),
    "last missing": lambda m, c: c.pop(),
    "missing, and its files too": lambda m, c: without(m, c),
    "missing, and the layers renumbered": lambda m, c: (c.pop(-2), c[-1].update(first_layer=1)),
    "missing, its files too, and the layers renumbered": lambda m, c: (without(m, c), c[-1].update(first_layer=1)),
    "out of order": lambda m, c: c[-2].update(first_layer=0),
    "twice, without layers": lambda m, c: c.insert(-1, without_layers(c[-2])),
    "ids in between": lambda m, c: c[-2]["inputs"].append({**hidden(c[-2]), "name": "inputIds"}),
    "logits in between": lambda m, c: c[-2]["outputs"].append({**hidden(c[-2]), "name": "logits"}),
    "no position": lambda m, c: [c[-2]["inputs"].remove(s) for s in list(c[-2]["inputs"]) if s["name"] == "position"],
    "twice": lambda m, c: c.insert(-1, c[-2]),
    "twice, with other layers": lambda m, c: c.insert(-1, {**c[-2], "first_layer": 2}),
    "another package's place": lambda m, c: c[-2].update(path=c[-3]["path"]),
    "the last two swapped": lambda m, c: swapped(c, -1, -2),
    "the last two swapped, layers too": lambda m, c: (
        swapped(c, -1, -2), c[-2].update(first_layer=1), c[-1].update(first_layer=2),
    ),
    "reversed": lambda m, c: c.reverse(),
    "none": lambda m, c: c.clear(),
    "one": lambda m, c: c.__delitem__(slice(1, None)),
    "negative": lambda m, c: c[-2].update(layers=-1),
    "a cache of other layers": lambda m, c: [s["shape"].__setitem__(0, 7) for s in caches(c[-2])],
    "no cache": lambda m, c: [c[-2][k].remove(s) for k in ("inputs", "states") for s in caches(c[-2]) if s in c[-2][k]],
    "another residual stream": lambda m, c: hidden(c[-1]).update(shape=[1, 65, 1, 1]),
    "another type of it": lambda m, c: hidden(c[-1]).update(dtype="float32"),
    "no decode": lambda m, c: c[-2].update(functions={"prefill": "prefill"}),
    "another role": lambda m, c: c[-2]["functions"].update(sample="main2"),
    "the first is another": lambda m, c: m["entry"].update(path=c[-2]["path"]),
    "outside": lambda m, c: c[-2].update(path="../x.mlpackage"),
    "not listed": lambda m, c: c[-2].update(path="model-9-of-3.mlpackage"),
    "a package more": lambda m, c: m["files"].append({**m["files"][0], "path": "x.mlpackage/model.bin"}),
    "another format": lambda m, c: (m["entry"].update(format="onnx"), m["plan"].update(format="onnx")),
    "an unknown key": lambda m, c: c[-2].update(extra=1),
    "a key missing": lambda m, c: c[-2].pop("layers"),
}  # fmt: skip


def caches(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    return [s for s in (*chunk["inputs"], *chunk["states"]) if s["name"] in ("keyCache", "valueCache")]


def hidden(chunk: dict[str, Any]) -> dict[str, Any]:
    return next(s for s in chunk["inputs"] if s["name"] == "hiddenStates")


def without_layers(chunk: dict[str, Any]) -> dict[str, Any]:
    after, given = chunk["first_layer"] + chunk["layers"], hidden(chunk)
    handed = {**given, "name": "outputHiddenStates"}
    return {**chunk, "first_layer": after, "layers": 0, "inputs": [given], "outputs": [handed], "states": []}


def without(m: dict[str, Any], chunks: list[Any]) -> None:
    gone = chunks.pop(-2)
    m["files"] = [f for f in m["files"] if not f["path"].startswith(gone["path"])]


@pytest.mark.parametrize("change", HOSTILE)
def test_another_chain_is_refused(good: Manifest, change: str) -> None:
    value = json.loads(good.to_bytes())
    HOSTILE[change](value, value["entry"]["chunks"])
    with pytest.raises(BundleError):
        Manifest.from_bytes(json.dumps(value).encode())


# --- the whole way ---


def test_from_a_checkpoint_to_a_bundle_that_is_valid(tmp_path: Path) -> None:
    checkpoint = tiny_folder(tmp_path / "tiny")
    (bundle,) = satchel.export(
        checkpoint, "iphone-15-pro", overrides={"chunks": "2"}, effort="low", context=128, output=tmp_path
    )
    paths = bundle.manifest.entry.paths
    assert paths == ("model-1-of-2.mlpackage", "model-2-of-2.mlpackage")
    report = validate(bundle, limits={"quality.kl_mean": None, "quality.top1": None}, prompts=2)  # random weights
    assert report.passed, report.to_json()["failures"]
    found = inspect_path(bundle.folder, weights=True)
    assert [c["layers"] for c in found["chunks"]] == ["none: looks up ids", "0 to 0", "1 to 1"]
    assert {t["name"] for t in found["tensors"]} == set(bundle.manifest.weights.tensors)
    linears = sum(t["bytes"] for t in found["tensors"] if t["name"].startswith("layers."))
    assert bundle.bytes <= other_bytes(open_model(checkpoint), bundle.manifest.plan) + linears
    assert all(path in (bundle.folder / "README.md").read_text() for path in paths)
    shutil.rmtree(bundle.folder / paths[0])
    with pytest.raises(BundleError, match="model-1-of-2"):
        open_bundle(bundle.folder, verify=False)
