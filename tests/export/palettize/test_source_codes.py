"""The codes of a GGUF file, written by gguf-py's own quantizers, come out of every format as they went in."""

import numpy as np
import onnx_models
import pytest
import torch
from coreml_caller import INFO, Caller, coreml_plan
from gguf import GGMLQuantizationType as Kind
from tiny_checkpoints import save_gguf
from tiny_folder import tiny_folder
from tiny_llama import tiny_llama

import satchel
from satchel.devices.errors import PlanError
from satchel.devices.plan import Choice, Plan
from satchel.devices.profile import PROFILES
from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.formats import coreml as coreml_format
from satchel.export.formats import executorch as executorch_format
from satchel.export.formats import onnx as onnx_format
from satchel.export.palettize.source_codes import check_source, keep_codes
from satchel.export.palettize.store import WeightStore
from satchel.export.palettize.tensors import AffineTensor
from satchel.runtime.backends.executorch import ExecutorchBackend
from satchel.runtime.backends.onnx import OnnxBackend
from satchel.runtime.errors import CheckpointError, UsageError
from satchel.runtime.metrics import kl
from satchel.runtime.mil.package import open_package
from satchel.runtime.parity import validate
from satchel.runtime.readback import coreml, executorch, onnx

MIXED = {"embed_tokens": Kind.Q8_0, "v_proj": Kind.Q8_0, "down_proj": Kind.Q4_0, "o_proj": Kind.F16}
FILES = {"mixed": (Kind.Q4_1, MIXED), "Q4_0": (Kind.Q4_0, {}), "Q4_1": (Kind.Q4_1, {}), "Q8_0": (Kind.Q8_0, {})}
IDS = [1, 17, 200, 3, 3, 91, 54, 8, 120, 44, 5]


def gguf_file(path, which, **options):
    """(the file, the model that it was made of, its configuration); weights of every kind a block can have."""
    reference, config = tiny_llama(vocab=320, **options)
    with torch.no_grad():
        for p in reference.parameters():
            if p.ndim == 2:
                p[0] += 0.5  # blocks above zero
                p[1], p[2, :32] = 0, 0.25  # blocks of one value
                p[3] *= 1e-3
    kind, kinds = FILES[which]
    return save_gguf(path / "model.gguf", reference, config, kind, kinds=kinds), reference, config


def stored(folder, path):
    config, tensors = load_family(open_checkpoint(path))
    store = WeightStore(folder / "store")
    keep_codes(tensors, config, store)
    return config, tensors, store


def expected(reference, tensors):
    """fp32 [len(IDS), vocab], by transformers with gguf-py's dequantized values."""
    with torch.no_grad():
        for key, p in reference.state_dict().items():
            name = key.removeprefix("model.").removesuffix(".weight")
            if name != "lm_head" or not reference.config.tie_word_embeddings:
                p.copy_(torch.from_numpy(tensors.read(name)))
        return reference(torch.tensor([IDS])).logits[0].numpy()


def export(path, folder, device, **options):
    (bundle,) = satchel.export(path, device, weights="source", context=128, output=folder, **options)
    return bundle


@pytest.mark.parametrize("which", FILES)
def test_every_matrix_is_what_gguf_says(tmp_path, which):
    path, *_ = gguf_file(tmp_path, which, tied=False)
    config, tensors, store = stored(tmp_path, path)
    for name in config.matrix_shapes():
        assert np.array_equal(store.matrix(name).dequantize(), tensors.read(name)), name
    assert all(np.array_equal(store.vector(name), tensors.read(name)) for name in config.vector_shapes())
    schemes = {store.matrix(name).scheme() for name in config.matrix_shapes()}
    one = {"Q4_0": "int4-block32", "Q4_1": "int4-block32-min", "Q8_0": "int8-block32"}
    assert schemes == ({*one.values(), "fp16"} if which == "mixed" else {one[which]})


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("which", FILES)
def test_onnx_holds_them_exactly(tmp_path, which, tied):
    path, reference, _ = gguf_file(tmp_path, which, tied=tied)
    config, tensors, store = stored(tmp_path, path)
    entry = onnx_format.write(tmp_path, store, config, onnx_models.plan(), INFO)
    records = {r.name: r for r in onnx.read_weights(tmp_path / entry.path)}
    assert list(records) == list(config.matrix_shapes())
    for name, record in records.items():
        matrix = store.matrix(name)
        assert (record.sha256, record.bits) == (matrix.digest(), matrix.bits), name
        whole = record.shape[0] * record.shape[1] * matrix.bits // 8
        blocks = record.shape[0] * record.shape[1] // 32 * isinstance(matrix, AffineTensor)
        minimum = "min" in matrix.scheme()
        assert 0 <= record.bytes - whole - 2 * blocks * (1 + minimum) <= 16, name
    backend = OnnxBackend(tmp_path, entry, threads=1, exact=True)
    want = expected(reference, tensors)
    assert np.abs(want).max() > 1
    np.testing.assert_allclose(backend.prefill(IDS[:6]), want[5], atol=2e-4)
    np.testing.assert_allclose(backend.step(IDS[6]), want[6], atol=2e-4)


@pytest.mark.parametrize("which", ["mixed", "Q4_1"])
def test_core_ml_rounds_minima_to_fp16_and_nothing_else(tmp_path, which):
    path, reference, _ = gguf_file(tmp_path, which)
    config, tensors, store = stored(tmp_path, path)
    plan = coreml_plan(layout="plain", lm_head="whole")
    entry = coreml_format.write(tmp_path, store, config, plan, INFO)
    records = {r.name: r for r in coreml.read_weights(tmp_path / entry.path)}
    package = coreml.PackageWeights(*_opened(tmp_path / entry.path))
    for name, record in records.items():
        matrix = store.matrix(name)
        minimum = getattr(matrix, "minimum", None)
        assert record.bits == matrix.bits
        assert minimum is not None or record.sha256 == matrix.digest(), name
        bound = 0 if minimum is None else np.repeat(np.abs(minimum + 8 * matrix.scale), 32, axis=1) / 2040
        assert (np.abs(package.matrix(name) - matrix.dequantize()) <= bound).all(), name
    want = expected(reference, tensors)
    assert np.abs(Caller(tmp_path, entry).prefill(np.array(IDS)) - want).max() < 0.02 * np.abs(want).max()


def _opened(file):
    package = open_package(file)
    return package, package.default_function


def test_what_cannot_be_kept_is_named(tmp_path):
    path, *_ = gguf_file(tmp_path, "mixed")
    with pytest.raises(UsageError, match="XNNPACK") as refused:
        export(path, tmp_path, "pixel-9", format="executorch")
    assert "Q4_1" in str(refused.value) and "--format onnx" in str(refused.value)
    with pytest.raises(PlanError, match="weights = source"):
        export(path, tmp_path, _before_ios18(tmp_path))
    reference, config = tiny_llama(vocab=320)
    unknown = save_gguf(tmp_path / "unknown.gguf", reference, config, Kind.Q4_0, kinds={"v_proj": Kind.Q5_0})
    with pytest.raises(UsageError, match="2 x Q5_0, such as layers"):
        export(unknown, tmp_path, "pixel-9")
    floats = save_gguf(tmp_path / "floats.gguf", reference, config, Kind.F16)
    for source in (floats, tiny_folder(tmp_path / "folder")):
        with pytest.raises(UsageError, match="no codes"):
            export(source, tmp_path, "pixel-9")
    assert not list(tmp_path.glob("*.satchel"))


def _before_ios18(folder):
    """A device whose system is too old for scales by block."""
    older = folder / "older.toml"
    text = (PROFILES / "iphone-15-pro.toml").read_text().replace("os_version = 18", "os_version = 17", 1)
    older.write_text(text.replace('name = "iphone-15-pro"', 'name = "older"'))
    return str(older)


def test_scales_that_are_no_numbers(tmp_path):
    path, *_ = gguf_file(tmp_path, "Q4_0")
    checkpoint = open_checkpoint(path)
    at = checkpoint._entries["blk.1.ffn_up.weight"].offset
    data = bytearray(path.read_bytes())
    data[at : at + 2] = np.array(np.nan, "<f2").tobytes()
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj"):
        stored(tmp_path, path)


def test_xnnpack_takes_symmetric_blocks_whose_scales_it_can_hold(tmp_path):
    reference, config = tiny_llama(vocab=320)
    with torch.no_grad():
        for p in reference.parameters():
            if p.ndim == 2:
                p.copy_((p * 16).round().clamp(-7, 7) / 16)
                p[:, ::32] = -0.5  # the largest of each block, so that its scale is 1/16
    path = save_gguf(tmp_path / "model.gguf", reference, config, Kind.Q4_0, kinds={"embed_tokens": Kind.F32})
    config, tensors, store = stored(tmp_path, path)
    plan = Plan("test", "executorch", 32, 0, (Choice("target", "xnnpack", "", ""), Choice("weights", "source", "", "")))
    check_source(tensors, config, [plan])
    entry = executorch_format.write(tmp_path, store, config, plan, INFO)
    for record in executorch.read_weights(tmp_path / entry.path):
        assert record.sha256 == store.matrix(record.name).digest()
    got = ExecutorchBackend(tmp_path, entry).prefill(IDS)
    assert kl(expected(reference, tensors)[-1:], got[None])[0] < 0.05, "activations are rounded to 8 bits"


@pytest.mark.parametrize("device", ["pixel-9", "iphone-15-pro"])
def test_a_bundle_says_what_it_keeps(tmp_path, device):
    path, *_ = gguf_file(tmp_path, "mixed", layers=1)
    bundle = export(path, tmp_path, device)
    schemes = bundle.manifest.weights.tensors
    assert schemes["layers.0.self_attn.q_proj"] == "int4-block32-min"
    assert (schemes["embed_tokens"], schemes["layers.0.mlp.down_proj"]) == ("int8-block32", "int4-block32")
    assert "a minimum for each 32 weights" in (bundle.folder / "README.md").read_text()
    assert validate(bundle).passed
