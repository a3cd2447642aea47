"""A streamed reference says what the loaded one says, which transformers loads by itself."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoints import VOCAB, save_gguf, save_tokenizer
from tiny_llama import MemoryWeights, compress, naive_affine, naive_palette, tiny_llama
from tiny_phi import save_phi_gguf, tiny_phi

from satchel.export import golden as golden_module
from satchel.export import streaming
from satchel.export.calibration.uncompressed import Uncompressed
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.golden import HUGE_STEPS, LARGE_STEPS, golden, golden_prompts, with_weights
from satchel.export.palettize.expand import expand
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.reference import Reference
from satchel.export.tokenizer import read_tokenizer

IDS = [5, 200, 31, 7, 7, 90]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Of 64 rows each, so that matrices of this size have several."""
    monkeypatch.setattr(streaming, "WEIGHTS_A_PIECE", 1)


def saved(path, kind, tied, **options):
    """A checkpoint of some kind; in a folder head_dim is not hidden / heads, so that q_proj is not square."""
    if kind.startswith("phi"):
        model, _ = tiny_phi(vocab=265)  # as many as the tokenizer has, which a GGUF file goes by
        if kind == "phi gguf":
            return save_phi_gguf(path / "phi.gguf", model, fused=True)
        model.save_pretrained(path)
        return path
    folder = {} if kind == "gguf" else {"head_dim": 32, "bias": True}
    model, config = tiny_llama(vocab=VOCAB, tied=tied, **folder, **options)
    if kind == "gguf":
        return save_gguf(path / "tiny.gguf", model, config)
    (model.bfloat16() if kind == "bfloat16" else model).save_pretrained(path)
    if kind == "rope":
        file = path / "config.json"
        values = json.loads(file.read_text())
        values["rope_parameters"] |= {"rope_type": "linear", "factor": 4.0}
        file.write_text(json.dumps(values))
    return path


def compressed(tensors, config, scheme):
    return MemoryWeights({n: compress(n, tensors.read(n), scheme) for n in config.matrix_shapes()}, {})


@pytest.mark.parametrize(
    ("kind", "tied"),
    [("float32", True), ("float32", False), ("bfloat16", False), ("rope", True), ("gguf", True), ("gguf", False),
     ("phi", False), ("phi gguf", False)],
)  # fmt: skip
def test_it_says_what_the_loaded_model_says(tmp_path, kind, tied):
    path = saved(tmp_path, kind, tied)
    config, tensors = load_family(open_checkpoint(path))
    with Reference(path) as loaded, Reference(path, streamed=True) as streamed:
        before = loaded.logits(IDS)
        np.testing.assert_allclose(streamed.logits(IDS), before, rtol=0, atol=1e-5)
        for ours, theirs in zip(streamed.batch_logits([IDS, IDS[:2]]), (IDS, IDS[:2]), strict=True):
            np.testing.assert_allclose(ours, loaded.logits(theirs), rtol=0, atol=1e-5)
        assert streamed.continuations([IDS, IDS[:2]], 6)[0] == loaded.continuations([IDS, IDS[:2]], 6)[0]
        for scheme in ("palette", "palette-rows16", "int4", "fp16"):
            weights = compressed(tensors, config, scheme)
            loaded.load_weights(weights)
            streamed.load_weights(weights)
            after = loaded.logits(IDS)
            assert scheme == "fp16" or np.abs(after - before).max() > 1e-4
            np.testing.assert_allclose(streamed.logits(IDS), after, rtol=0, atol=1e-5)
        matrices = [p for p in streamed.model.parameters() if p.ndim > 1 or p.is_meta]
        assert not matrices, "no matrix is held, and nothing is left without values"


@pytest.mark.parametrize(("streamed", "steps"), [(False, LARGE_STEPS), (True, LARGE_STEPS), (True, HUGE_STEPS)])
def test_golden_data_of_a_large_model(tmp_path, monkeypatch, streamed, steps):
    """Few passes, and the same golden data as from one prompt at a time."""
    path = saved(tmp_path, "bfloat16", False)
    save_tokenizer(path)
    checkpoint = open_checkpoint(path)
    config, tensors = load_family(checkpoint)
    monkeypatch.setattr(golden_module, "LARGE", 0)
    if steps == HUGE_STEPS:
        monkeypatch.setattr(golden_module, "HUGE", 0)
    prompts = golden_prompts(config, read_tokenizer(checkpoint, config))
    passes = []
    with Reference(path, streamed=streamed) as reference, Reference(path) as plain:
        reference.model.register_forward_pre_hook(lambda *_: passes.append(1))
        found = with_weights(golden(reference, prompts), reference, Uncompressed(tensors))
        assert len(passes) == 2 * (steps + 1)
        for name in ("reference", "weights"):
            for prompt, rows in found.rows():
                assert len(prompt.continuation) == steps
                logits = plain.logits(prompt.sequence)
                np.testing.assert_allclose(found.sets[name].top_logits[rows][:, 0], logits.max(1), atol=1e-5)
        assert [p.continuation for p in found.prompts] == [tuple(plain.greedy(p.ids, steps)) for p in found.prompts]


def test_the_same_golden_bytes_streamed_or_not(tmp_path, monkeypatch):
    """On one thread, where sums are in the same order."""
    monkeypatch.setattr(golden_module, "LARGE", 0)
    path, threads = saved(tmp_path, "float32", True), torch.get_num_threads()
    config, tensors = load_family(open_checkpoint(path))
    torch.set_num_threads(1)
    try:
        for number, streamed in enumerate((False, True)):
            with Reference(path, streamed=streamed) as reference:
                golden(reference, golden_prompts(config, None), compressed(tensors, config, "palette")).write(
                    tmp_path / f"golden{number}"
                )
    finally:
        torch.set_num_threads(threads)
    files = [{p.name: p.read_bytes() for p in (tmp_path / f"golden{n}").iterdir()} for n in (0, 1)]
    assert files[0] == files[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["palette", "affine", "plain"]), st.data())
def test_expand_is_dequantize(seed, kind, data):
    rows, columns = 48, 64
    w = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    if kind == "palette":
        matrix = naive_palette(
            w, groups=data.draw(st.sampled_from([1, 3, 48])), bits=data.draw(st.sampled_from([2, 4, 8]))
        )
    elif kind == "affine":
        matrix = naive_affine(w, symmetric=data.draw(st.booleans()))
    else:
        matrix = PlainTensor(w.astype(data.draw(st.sampled_from([np.float16, np.float32]))))
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    np.testing.assert_array_equal(expand(matrix, start, stop), matrix.dequantize(slice(start, stop)))
