"""The MIL op sets, run by the interpreter: their numbers against transformers, and the forms that devices need."""

from functools import partial

import numpy as np
import pytest
import torch
from coreml_caller import INFO, Caller, coreml_plan
from tiny_llama import tiny_llama, weights_of
from tiny_phi import tiny_phi

from satchel.export.formats import coreml
from satchel.runtime.mil.package import open_package

IDS = np.random.default_rng(0).integers(0, 250, 30)
PROMPT = 19  # two whole prefill calls of 8, and one of 3 tokens


def reference_logits(reference, ids=IDS):
    with torch.no_grad():
        return reference(torch.from_numpy(ids)[None]).logits[0].numpy()


def mean_kl(p, q):
    p, q = (torch.log_softmax(torch.from_numpy(np.asarray(x, np.float64)), -1) for x in (p, q))
    return float((p.exp() * (p - q)).sum(-1).mean())


def exact_in_fp16(reference):
    """Norm gains and biases as checkpoints have them: numbers of a 16-bit format."""
    with torch.no_grad():
        for p in reference.parameters():
            if p.ndim == 1:
                p.copy_(p.half().float())


def run(folder, model, scheme, precision="fp32", context=64, **roles):
    reference, config = model
    exact_in_fp16(reference)
    weights = weights_of(reference, config, scheme)
    entry = coreml.write(folder, weights, config, coreml_plan(context=context, **roles), INFO)
    caller = Caller(folder, entry, precision)
    start = caller.prefill if "prefill" in caller.functions else caller.decode
    return np.concatenate([start(IDS[:PROMPT]), caller.decode(IDS[PROMPT:])])


def operations(folder, function):
    return list(open_package(folder / coreml.PACKAGE).block(function).operations)


@pytest.mark.parametrize(
    "roles",
    [
        {},
        {"layout": "plain"},
        {"layout": "plain", "attention": "fused_sdpa"},
        {"target": "iOS16", "lm_head": "whole"},
        {"target": "iOS17", "layout": "plain", "lm_head": "whole"},
    ],
    ids=lambda roles: "-".join(roles.values()) or "engine",
)
@pytest.mark.parametrize(
    ("tiny", "shape"),
    [
        (tiny_llama, {}),
        (tiny_llama, {"tied": False, "kv_heads": 1, "bias": True, "layers": 1}),
        (tiny_llama, {"kv_heads": 4, "head_dim": 24, "vocab": 250, "bias": True}),
        (tiny_phi, {}),
        (tiny_phi, {"kv_heads": 4, "vocab": 250, "rotated": 0.25, "layers": 1}),
    ],
    ids=["tied-gqa", "untied-mqa-bias", "tied-mha-odd", "phi-gqa", "phi-mha-odd"],
)
def test_fp32_is_transformers(tmp_path, roles, tiny, shape):
    model = tiny(**shape)
    got = run(tmp_path, model, "fp32", **roles)
    want = reference_logits(model[0])
    assert np.abs(want).max() > 1
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("scheme", "roles"),
    [
        ("fp16", {"layout": "plain", "attention": "fused_sdpa"}),
        ("palette", {}),
        ("palette", {"cache_write": "mask"}),
        ("palette", {"target": "iOS16"}),
        ("palette-rows16", {"layout": "plain"}),
        ("palette-mixed", {}),
        ("palette-mixed", {"target": "iOS17", "layout": "plain"}),
        ("int8", {"lm_head": "whole"}),
        ("int8", {"target": "iOS17", "tied_head": "duplicated"}),
        ("int4", {"layout": "plain"}),
        ("int4-sym", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()) or "engine",
)
@pytest.mark.parametrize("tiny", [tiny_llama, tiny_phi])
def test_compressed_weights_are_those_of_the_reference(tmp_path, tiny, scheme, roles):
    model = tiny()
    for precision, limit in (("fp32", 1e-5), ("fp16", 1e-4)):
        folder = tmp_path / precision
        folder.mkdir()
        got = run(folder, model, scheme, precision, **roles)
        assert mean_kl(reference_logits(model[0]), got) < limit


def test_states_and_io_compute_the_same(tmp_path):
    """The cache's way changes no number where it is rounded to fp16 alike; what an app sees is the same."""
    found = []
    for cache, write in (("state", "slice_update"), ("state", "mask"), ("io", "slice_update")):
        folder = tmp_path / f"{cache}-{write}"
        folder.mkdir()
        found.append(run(folder, tiny_llama(), "palette", "fp16", cache=cache, cache_write=write))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("tiny", [partial(tiny_llama, tied=False), tiny_phi])
def test_the_norm_survives_what_fp16_cannot_square(tmp_path, tiny):
    """A residual of a thousand, far below SmolLM2's: squared it would be infinite."""
    reference, config = tiny()
    with torch.no_grad():
        reference.model.embed_tokens.weight[:, 5] = 1000.0
    got = run(tmp_path, (reference, config), "fp16", "fp16", lm_head="split2")
    assert np.isfinite(got).all()
    assert mean_kl(reference_logits(reference), got) < 1e-3


def test_the_cache_may_be_filled_to_its_last_slot(tmp_path):
    model = tiny_llama()
    got = run(tmp_path, model, "fp32", context=len(IDS))
    np.testing.assert_allclose(got, reference_logits(model[0]), atol=1e-4, rtol=0)


def test_the_engine_sees_only_what_it_runs(tmp_path):
    """Convolutions and einsum, four axes with a batch of 1, no linear and no fused attention, nothing infinite."""
    run(tmp_path, tiny_llama(), "palette")
    for function, length in (("main", 1), ("prefill", 8)):
        found = operations(tmp_path, function)
        kinds = [op.type for op in found]
        assert kinds.count("conv") == 2 * 7 + 4
        assert kinds.count("einsum") == 2 * 2 * 4
        assert not {"linear", "matmul", "scaled_dot_product_attention", "silu", "sigmoid"} & set(kinds)
        for op in found:
            if op.type in ("conv", "einsum", "softmax", "mul", "tanh", "reshape"):
                shape = [d.constant.size for d in op.outputs[0].type.tensorType.dimensions]
                assert len(shape) <= 4
                assert len(shape) < 4 or shape[0] == 1
        logits = next(op for op in found if op.outputs and op.outputs[0].name == "logits")
        assert logits.type == "concat"
        assert [d.constant.size for d in logits.outputs[0].type.tensorType.dimensions] == [1, length, 256]


def test_the_plain_layout_is_for_gpu_and_cpu(tmp_path):
    run(tmp_path, tiny_llama(), "palette", layout="plain", attention="fused_sdpa", lm_head="whole")
    kinds = [op.type for op in operations(tmp_path, "main")]
    assert kinds.count("linear") == 2 * 7 + 1
    assert kinds.count("scaled_dot_product_attention") == 2
    assert not {"conv", "einsum"} & set(kinds)
