import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from onnx_models import tokens, written

from satchel.runtime.backends.onnx import OnnxBackend
from satchel.runtime.errors import FormatError, UsageError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    return folder, written(folder, "palette", context_length=16)[3]


def test_prefill_step_and_reset(model):
    folder, entry = model
    backend = OnnxBackend(folder, entry, threads=2)
    ids = tokens(10)
    whole = backend.prefill(ids)
    assert (whole.shape, whole.dtype, backend.position) == ((256,), np.float32, 10)
    backend.reset()
    assert backend.position == 0
    halves = [backend.prefill(ids[:4]), backend.prefill(ids[4:9]), backend.step(ids[9])]
    assert backend.position == 10
    np.testing.assert_allclose(halves[-1], whole, atol=1e-4)
    kept = whole.copy()
    backend.step(1)
    np.testing.assert_array_equal(whole, kept, "results must not change under the caller's hands")


def test_the_cache_is_bound_once_and_written_in_place(model):
    folder, entry = model
    backend = OnnxBackend(folder, entry)
    backend.prefill(tokens(5))
    key = backend._cache[0]
    assert np.abs(key[0, :, :5]).min(-1).any() and not key[0, :, 5:].any()


def test_the_cache_has_an_end(model):
    backend = OnnxBackend(*model)
    backend.prefill(tokens(16))
    with pytest.raises(UsageError, match="more tokens than the cache holds"):
        backend.step(1)
    assert backend.position == 16
    backend.reset()
    with pytest.raises(UsageError, match="17"):
        backend.prefill(tokens(17))
    with pytest.raises(UsageError, match="no tokens"):
        backend.prefill([])


def test_a_token_beyond_the_vocabulary(model):
    for token in (256, -1):
        with pytest.raises(UsageError, match="does not have"):
            OnnxBackend(*model).step(token)


def test_an_old_onnxruntime_is_told_apart(model, monkeypatch):
    folder, entry = model
    monkeypatch.setattr(onnxruntime, "__version__", "1.22.1")
    with pytest.raises(FormatError, match=r"too old.*1\.22\.1.*1\.23"):
        OnnxBackend(folder, entry)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data"])
def test_damaged_files(name, tmp_path):
    entry = written(tmp_path, "int4", context_length=16)[3]
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(FormatError, match="cannot read"):
        OnnxBackend(tmp_path, entry)
    path.unlink()
    with pytest.raises(FormatError, match="cannot read"):
        OnnxBackend(tmp_path, entry)


def test_a_signature_without_logits(model):
    folder, entry = model
    with pytest.raises(FormatError, match="no logits"):
        OnnxBackend(folder, replace(entry, outputs=entry.outputs[1:]))


def test_no_torch_and_no_exporter_is_imported(model):
    code = "import sys, satchel.runtime.backends.onnx, satchel.runtime.readback.onnx, onnxruntime; " + (
        "assert not {'torch', 'onnx_ir', 'transformers', 'coremltools'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.smollm2
def test_smollm2_under_genai_says_the_same(smollm2_bundles):
    genai = pytest.importorskip("onnxruntime_genai")
    from satchel.runtime.bundle import open_bundle

    folder = smollm2_bundles["onnx"]
    model = genai.Model(str(folder))
    tokenizer = genai.Tokenizer(model)
    ids = tokenizer.encode("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, max_length=len(ids) + 24, min_length=0)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    said = [int(token) for token in generator.get_sequence(0)[len(ids) :]]

    bundle = open_bundle(folder)
    backend = OnnxBackend(folder, bundle.manifest.entry)
    ours = [int(backend.prefill(ids).argmax())]
    while len(ours) < len(said):
        ours.append(int(backend.step(ours[-1]).argmax()))
    assert said == ours
    assert "Paris" in tokenizer.decode(said)
    assert sum((folder / name).stat().st_size for name in ("model.onnx", "model.onnx.data")) < 91_000_000
