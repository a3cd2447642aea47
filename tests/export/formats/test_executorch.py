"""model.pte against transformers: what it computes, what is in it, and that it is always the same bytes."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_llama import naive_affine, tiny_llama, weights_of
from tiny_phi import tiny_phi

from satchel.devices.errors import PlanError
from satchel.devices.plan import Choice, Plan
from satchel.export.formats.executorch import write
from satchel.export.formats.executorch_program import Arena
from satchel.export.ops.executorch import Tensor
from satchel.runtime.backends.executorch import ExecutorchBackend
from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import ModelInfo
from satchel.runtime.metrics import kl
from satchel.runtime.pte import open_pte, unpack_coreml

IDS = [1, 17, 200, 3, 3, 91, 54, 8, 120, 44, 5]
INFO = ModelInfo("tiny", "llama", "", "unknown", "", "random", 1)
SHAPES = {
    "tied, grouped-query": {},
    "untied, biased": {"tied": False, "bias": True},
    "multi-query, odd head_dim": {"hidden": 66, "heads": 3, "kv_heads": 1, "head_dim": 14, "tied": False},
    "one layer": {"layers": 1},
    "phi": {"tiny": tiny_phi, "rotated": 0.25},
}
# Activations are rounded to 8 bits for each token, by XNNPACK's kernels and on purpose. These random models have wide
# logits and 64 channels only, so a rounding weighs more than in a real one (SmolLM2: KL 0.02). Fp32 weights take the
# same path but for the rounding, and are held to 1e-4.
INT8_ACTIVATIONS = 0.02


def plan(context=32, prefill=0, **roles):
    roles = {"target": "xnnpack"} | roles
    return Plan("test", "executorch", context, prefill, tuple(Choice(k, v, "", "") for k, v in roles.items()))


def exported(folder, scheme="fp32", shape=(), **options):
    given = dict(shape)
    reference, config = given.pop("tiny", tiny_llama)(**given)
    weights = weights_of(reference, config, scheme)
    entry = write(folder, weights, config, plan(**options), INFO)
    return reference, weights, entry


def expected(reference):
    with torch.no_grad():
        return reference(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("prefill", [0, 4], ids=["one call", "calls of 4"])
def test_fp32_agrees_with_transformers_in_prefill_and_decode(tmp_path, shape, prefill):
    reference, _, entry = exported(tmp_path, shape=shape, prefill=prefill)
    backend, want = ExecutorchBackend(tmp_path, entry), expected(reference)
    np.testing.assert_allclose(backend.prefill(IDS[:6]), want[5], atol=1e-4)
    for i, token in enumerate(IDS[6:], start=6):
        np.testing.assert_allclose(backend.step(token), want[i], atol=1e-4)
    backend.reset()
    np.testing.assert_allclose(backend.prefill(IDS), want[-1], atol=1e-4)


@pytest.mark.parametrize("scheme", ["palette", "palette-rows16", "int8", "int4-sym"])
@pytest.mark.parametrize("tied", [True, False])
def test_compressed_weights_stay_near_the_dequantized_model(tmp_path, scheme, tied):
    reference, _, entry = exported(tmp_path, scheme, {"tied": tied, "bias": not tied})
    backend, want = ExecutorchBackend(tmp_path, entry), expected(reference)
    got = np.stack([backend.prefill(IDS[:6]), *(backend.step(token) for token in IDS[6:])])
    divergence = kl(want[5:], got)
    assert 0 < divergence.mean() < INT8_ACTIVATIONS


@pytest.mark.parametrize("scheme", ["palette", "palette-rows16", "palette-mixed", "int8"])
@pytest.mark.parametrize("tied", [True, False])
def test_with_fp32_activations_the_palette_is_exact(tmp_path, scheme, tied):
    reference, _, entry = exported(tmp_path, scheme, {"tied": tied, "bias": not tied}, linear="f32_qc8w")
    backend, want = ExecutorchBackend(tmp_path, entry), expected(reference)
    np.testing.assert_allclose(backend.prefill(IDS[:6]), want[5], atol=1e-4)
    np.testing.assert_allclose(backend.step(IDS[6]), want[6], atol=1e-4)


def test_gelu_is_the_tanh_form(tmp_path):
    reference, config = tiny_llama()
    for layer in reference.model.layers:
        layer.mlp.act_fn = torch.nn.GELU(approximate="tanh")
    weights = weights_of(reference, config)
    config = dataclasses.replace(config, activation="gelu_tanh")
    backend = ExecutorchBackend(tmp_path, write(tmp_path, weights, config, plan(), INFO))
    np.testing.assert_allclose(backend.prefill(IDS), expected(reference)[-1], atol=1e-4)


@pytest.mark.parametrize("target", ["xnnpack", "coreml"])
def test_the_same_weights_give_the_same_bytes(tmp_path, target):
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        exported(tmp_path / name, "palette", target=target)
        files.append((tmp_path / name / "model.pte").read_bytes())
        assert [p.name for p in (tmp_path / name).iterdir()] == ["model.pte"]
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0]


def test_a_tied_head_is_stored_once(tmp_path):
    _, weights, entry = exported(tmp_path, "int8", {"vocab": 2048})
    codes = weights.matrix("embed_tokens").codes().tobytes()
    file = (tmp_path / entry.path).read_bytes()
    assert len(re.findall(re.escape(codes[:512]), file, re.DOTALL)) == 1
    assert codes in file


def test_what_the_llm_runner_asks_for(tmp_path):
    _, _, entry = exported(tmp_path, context=48, prefill=16)
    with open_pte(tmp_path / entry.path) as pte:
        answers = {p.name: [v.val for v in p.values] for p in pte.program.execution_plan if p.name != "forward"}
    numbers = {name: [vars(v).popitem()[1] for v in values] for name, values in answers.items()}
    assert numbers == {
        "get_max_seq_len": [16], "get_max_context_len": [48], "get_vocab_size": [256], "use_kv_cache": [True],
        "use_sdpa_with_kv_cache": [True], "enable_dynamic_shape": [True], "get_n_layers": [2], "get_bos_id": [1],
        "get_eos_ids": [2],
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["palette", "palette-rows16", "fp16"])
def test_the_core_ml_delegate_holds_our_program_with_its_lut(tmp_path, scheme):
    reference, _, entry = exported(tmp_path, scheme, {"tied": False}, target="coreml")
    backend = ExecutorchBackend(tmp_path, entry)
    # The program is in fp16: tables and gains are rounded to it even where arithmetic is done in fp32.
    np.testing.assert_allclose(backend.prefill(IDS), expected(reference)[-1], atol=0.01)
    assert (b"constexpr_lut_to_dense" in (tmp_path / entry.path).read_bytes()) == (scheme != "fp16")


def test_executorch_itself_unpacks_the_payload(tmp_path):
    coreml = pytest.importorskip("executorch.backends.apple.coreml.executorchcoreml")
    _, _, entry = exported(tmp_path, "palette", target="coreml")
    with open_pte(tmp_path / entry.path) as pte:
        payload = pte.payload(pte.plan.delegates[0])
        specs = {spec.key: bytes(spec.value) for spec in pte.plan.delegates[0].compile_specs}
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    assert coreml.unflatten_directory_contents(payload, str(theirs))
    unpack_coreml(payload, ours)
    assert contents(theirs / "lowered_module") == contents(ours)
    assert specs["compute_units"] == b"cpu_and_ne"
    assert specs["model_type"] == b"model"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def test_what_the_kernels_cannot_do_is_refused(tmp_path):
    reference, config = tiny_llama()
    weights = weights_of(reference, config, "int4")
    with pytest.raises(FormatError, match="zero points"):
        write(tmp_path, weights, config, plan(), INFO)
    weights.matrices["embed_tokens"] = naive_affine(np.ones((256, 64), np.float32))
    with pytest.raises(FormatError, match="keep embed_tokens at 8 bits"):
        write(tmp_path, weights, config, plan(), INFO)
    with pytest.raises(FormatError, match="states"):
        write(tmp_path, weights_of(reference, config, "fp32"), config, plan(target="coreml"), INFO)
    with pytest.raises(PlanError, match="vulkan"):
        write(tmp_path, weights, config, plan(target="vulkan"), INFO)


def test_tensors_that_live_at_the_same_time_share_no_bytes():
    random = np.random.default_rng(0)
    arena, placed = Arena(), []
    for _ in range(60):
        first, size = int(random.integers(0, 20)), int(random.integers(1, 300))
        tensor, last = Tensor((size,)), first + int(random.integers(0, 6))
        arena.place(tensor, first, last)
        placed.append((arena.offsets[id(tensor)], 4 * size, first, last, tensor))
    for i, (a, length, begin, end, _) in enumerate(placed):
        assert a + length <= arena.size
        for b, other, start, stop, _ in placed[:i]:
            assert end < start or stop < begin or a + length <= b or b + other <= a
    assert arena.size < sum(length for _, length, *_ in placed) / 2
