"""The reference model, and the golden data that comes out of it."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from tiny_checkpoints import VOCAB, save_gguf, save_tokenizer
from tiny_llama import MemoryWeights, tiny_llama

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.golden import golden, golden_prompts
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.reference import Reference
from satchel.export.tokenizer import read_tokenizer
from satchel.runtime.errors import CheckpointError, UsageError
from satchel.runtime.golden import STEPS, TOP, Golden

IDS = [5, 200, 31, 7, 7, 90]


@pytest.fixture
def folder(tmp_path):
    model, _ = tiny_llama(vocab=VOCAB, tied=False, seed=3)
    model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path


@torch.no_grad()
def logits_of(model, ids):
    return model(torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_it_is_the_model_that_was_saved(tmp_path, kind):
    model, config = tiny_llama(vocab=VOCAB, tied=kind == "gguf")
    path = tmp_path
    if kind == "gguf":
        path = save_gguf(tmp_path / "tiny.gguf", model, config)
    else:
        model.save_pretrained(tmp_path)
    with Reference(path) as reference:
        np.testing.assert_allclose(reference.logits(IDS), logits_of(model, IDS), atol=1e-5)
        assert reference.logits(IDS).dtype == np.float32
        assert not any(p.requires_grad for p in reference.model.parameters())


def test_greedy_with_a_cache_and_in_a_batch(folder):
    reference = Reference(folder)
    naive = list(IDS)
    for _ in range(10):
        naive.append(int(reference.logits(naive)[-1].argmax()))
    assert reference.greedy(IDS, 10) == naive[len(IDS) :]
    prompts = [IDS, IDS[:1], [9] * 17]
    chosen, logits = reference.continuations(prompts, 10)
    assert chosen == [reference.greedy(p, 10) for p in prompts]
    for prompt, answer, row in zip(prompts, chosen, logits, strict=True):
        forced = reference.logits([*prompt, *answer[:-1]])[len(prompt) - 1 :]
        np.testing.assert_allclose(row, forced, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_other_weights_in_the_same_program(tmp_path, tied):
    model, _ = tiny_llama(vocab=VOCAB, tied=tied, bias=True)
    model.save_pretrained(tmp_path)
    reference = Reference(tmp_path)
    config, tensors = load_family(open_checkpoint(tmp_path))
    halved = {n: PlainTensor(tensors.read(n) / 2) for n in config.matrix_shapes()}
    reference.load_weights(MemoryWeights(halved, {}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.div_(2)
    np.testing.assert_allclose(reference.logits(IDS), logits_of(model, IDS), atol=1e-5)
    with pytest.raises(KeyError):
        reference.load_weights(MemoryWeights(dict(list(halved.items())[1:]), {}))


def test_linears_by_canonical_name(folder):
    reference = Reference(folder)
    found = reference.linears()
    assert list(found) == [n for n in reference.config.matrix_shapes() if n != "embed_tokens"]
    for name, shape in reference.config.matrix_shapes().items():
        assert name == "embed_tokens" or tuple(found[name].weight.shape) == shape
    seen = []
    handle = found["layers.1.mlp.down_proj"].register_forward_pre_hook(lambda m, x: seen.append(x[0].shape))
    reference.logits(IDS)
    handle.remove()
    assert seen == [(1, len(IDS), 128)]


def test_gguf_rope_factors_reach_the_reference(tmp_path):
    """transformers leaves rope_freqs.weight out, so the reference would be another model."""
    model, config = tiny_llama(vocab=VOCAB)
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    path = save_gguf(tmp_path / "tiny.gguf", model, config, extra={"rope_freqs.weight": factors})
    plain = logits_of(model, IDS)
    model.model.rotary_emb.inv_freq.div_(torch.from_numpy(factors))
    expected = logits_of(model, IDS)
    assert np.abs(plain - expected).max() > 1e-2
    np.testing.assert_allclose(Reference(path).logits(IDS), expected, atol=1e-5)


def test_what_transformers_cannot_load_is_said(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        Reference(folder)


@pytest.mark.parametrize("with_tokenizer", [True, False])
def test_golden(folder, tmp_path, with_tokenizer):
    checkpoint = open_checkpoint(folder)
    config, tensors = load_family(checkpoint)
    tokenizer = read_tokenizer(checkpoint, config) if with_tokenizer else None
    prompts = golden_prompts(config, tokenizer)
    assert [p.text is not None for p in prompts] == [with_tokenizer] * 6
    assert golden_prompts(config, tokenizer) == prompts
    if tokenizer is not None:
        assert prompts[4].ids == tuple(tokenizer.encode_chat([{"role": "user", "content": prompts[4].text}]))
    reference = Reference(folder)
    originals = {p.ids: reference.logits(p.ids) for p in prompts}
    weights = {n: PlainTensor(tensors.read(n) * np.float32(0.9)) for n in config.matrix_shapes()}
    found = golden(reference, prompts, MemoryWeights(weights, {}))

    found.write(tmp_path / "golden")
    assert Golden.read(tmp_path / "golden").positions == found.positions == sum(len(p.ids) + STEPS - 1 for p in prompts)
    ours, theirs = found.sets["reference"], found.sets["weights"]
    for number, (prompt, rows) in enumerate(found.rows()):
        length = len(prompt.ids)
        top = np.sort(originals[prompt.ids], axis=1)[:, ::-1][:, :TOP]
        np.testing.assert_allclose(ours.top_logits[rows][:length], top, atol=1e-4)
        assert ours.top_ids[rows][length - 1 :, 0].tolist() == list(prompt.continuation)
        assert ours.greedy_ids[number].tolist() == list(prompt.continuation)
        assert theirs.greedy_ids[number].tolist() == reference.greedy(prompt.ids, STEPS)
        now = reference.logits(prompt.sequence)
        np.testing.assert_allclose(theirs.top_logits[rows][:, 0], now.max(1), atol=1e-4)
        np.testing.assert_allclose(theirs.logsumexp[rows], np.log(np.exp(now.astype(np.float64)).sum(1)), atol=1e-4)


def test_golden_prompts_fit_a_short_context(folder):
    checkpoint = open_checkpoint(folder)
    config, _ = load_family(checkpoint)
    tokenizer = read_tokenizer(checkpoint, config)
    whole, short = golden_prompts(config, tokenizer), golden_prompts(config, tokenizer, STEPS + 10)
    assert [p.ids for p in short] == [p.ids[:10] for p in whole]
    with pytest.raises(UsageError, match="too short"):
        golden_prompts(config, tokenizer, STEPS)


def run(code):
    """Runs code in a new process; returns what it printed, and fails on anything on stderr."""
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_it_is_quiet_and_imports_no_torchao(tmp_path):
    model, config = tiny_llama(vocab=VOCAB)
    save_gguf(tmp_path / "tiny.gguf", model, config)
    model.save_pretrained(tmp_path / "folder")
    out = run(f"""
        import sys
        from pathlib import Path
        from satchel.export.reference import Reference
        for path in ("tiny.gguf", "folder"):
            Reference(Path({str(tmp_path)!r}) / path).greedy([1, 2], 3)
        print("torchao" in sys.modules, "scipy" in sys.modules)
    """)
    assert out == ["False", "False"]


@pytest.mark.smollm2
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_smollm2_in_little_memory():
    """Measured 1.04 to 1.19 GB: 0.54 GB of weights, 0.38 GB of torch and transformers, and while loading."""
    out = run("""
        from satchel.export.calibration.uncompressed import Uncompressed
        from satchel.export.checkpoint import open_checkpoint
        from satchel.export.families.registry import load_family
        from satchel.export.golden import golden, golden_prompts
        from satchel.export.reference import Reference
        from satchel.export.source import resolve
        from satchel.export.tokenizer import read_tokenizer
        source = resolve("smollm2")
        checkpoint = open_checkpoint(source.path)
        config, tensors = load_family(checkpoint)
        tokenizer = read_tokenizer(checkpoint, config)
        with Reference(source) as reference:
            prompts = golden_prompts(config, tokenizer)
            found = golden(reference, prompts, Uncompressed(tensors))
        answer = tokenizer.decode(found.prompts[4].continuation)
        same = (found.sets["reference"].top_logits == found.sets["weights"].top_logits).all()
        status = open("/proc/self/status").read()  # ru_maxrss would begin with what the parent process had
        peak = int(status.partition("VmHWM:")[2].split()[0]) // 1024
        print(peak, found.positions, same, "capital of France is Paris" in answer)
    """)
    peak, positions, same, right = out
    assert int(peak) < 1300
    assert 300 <= int(positions) <= 400
    assert (same, right) == ("True", "True")
