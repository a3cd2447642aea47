"""The Core ML package as others read it: coremltools' own loader, the bytes on disk, and the refusals."""

import json
import random
import struct
from dataclasses import replace

import coremltools as ct
import numpy as np
import pytest
import torch
from coreml_caller import INFO, Caller, coreml_plan
from coremltools.converters.mil.frontend.milproto.load import load as load_program
from coremltools.converters.mil.mil import Builder as mb
from tiny_llama import MemoryWeights, tiny_llama, weights_of

from satchel.export.formats import coreml, mlpackage
from satchel.runtime.errors import PlanError
from satchel.runtime.mil.package import open_package

COMPRESSED = 2 * 7 + 1  # of the tiny model, its embedding included


def write(folder, scheme="palette", shape=None, **roles):
    folder.mkdir(parents=True, exist_ok=True)
    reference, config = tiny_llama(**(shape or {}))
    weights = weights_of(reference, config, scheme)
    return coreml.write(folder, weights, config, coreml_plan(**roles), INFO), config, weights


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def read_by_coremltools(folder):
    """The program as coremltools' loader makes it out of the saved package, with its weights."""
    model = ct.models.MLModel(str(folder / coreml.PACKAGE), skip_model_load=True)
    spec = model.get_spec()
    program = load_program(
        model_spec=spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir
    )
    return model, spec, program


def matrices_of(program, function):
    """name -> the matrix as coremltools expands it, with its row scales."""
    found = {}
    for op in program.functions[function].operations:
        if op.op_type.startswith("constexpr_"):
            values = op.materialized_val_inference()
            found[op.name] = values.reshape(values.shape[:2]).astype(np.float32)
    for op in program.functions[function].operations:
        if op.op_type == "const" and op.name.endswith("__scale"):
            found[op.name.removesuffix("__scale")] *= op.val.val.reshape(-1, 1).astype(np.float32)
    return found


@pytest.mark.parametrize(
    ("scheme", "target", "layout"),
    [
        ("palette", "iOS16", "channels_first"),
        ("palette", "iOS17", "plain"),
        ("palette", "iOS18", "channels_first"),
        ("palette-rows16", "iOS18", "plain"),
        ("int8", "iOS18", "channels_first"),
    ],
)
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_coremltools_reads_back_every_matrix_exactly(tmp_path, scheme, target, layout, tied):
    _, config, weights = write(tmp_path, scheme, {"tied": tied}, target=target, layout=layout)
    _, spec, program = read_by_coremltools(tmp_path)
    assert spec.specificationVersion == {"iOS16": 7, "iOS17": 8, "iOS18": 9}[target]
    assert set(program.functions) == ({"main", "prefill"} if target == "iOS18" else {"main"})
    for function in program.functions:
        found = matrices_of(program, function)
        head = "embed_tokens" if tied else "lm_head"
        parts = [found.pop(f"{head}__part{i}") for i in range(4)]
        if not tied:
            found["lm_head"] = np.concatenate(parts)
        else:
            assert np.array_equal(np.concatenate(parts), found["embed_tokens"])
        assert set(found) == {name.replace(".", "__") for name in config.matrix_shapes()}
        for name in config.matrix_shapes():
            assert np.array_equal(found[name.replace(".", "__")], weights.matrix(name).dequantize()), name


def test_int4_codes_scales_and_zero_points_are_kept(tmp_path):
    for scheme, kind in (("int4", "uint4"), ("int4-sym", "int4")):
        _, _, weights = write(tmp_path / scheme, scheme, cache="io")
        _, _, program = read_by_coremltools(tmp_path / scheme)
        op = next(op for op in program.functions["main"].operations if op.name == "layers__1__mlp__down_proj")
        m = weights.matrix("layers.1.mlp.down_proj")
        assert op.op_type == "constexpr_blockwise_shift_scale"
        assert kind in str(op.data.sym_type.__type_info__())
        zero = np.full(m.scale.shape, 0) if op.offset is None else op.offset.val
        assert (op.offset is None) == m.symmetric
        assert np.array_equal(op.data.val[..., 0, 0] + (8 if m.symmetric else 0), m.code)
        assert np.array_equal(zero.reshape(m.scale.shape) + (8 if m.symmetric else 0), m.zero_point)
        assert np.array_equal(op.scale.val.reshape(m.scale.shape).astype(np.float32), m.scale)


def test_the_same_model_is_the_same_bytes(tmp_path):
    entry, *_ = write(tmp_path / "a")
    mb.name_count["mul"] += 17  # as if something else had been built in this process
    random.seed(1)
    again, *_ = write(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert entry == again
    assert set(files(tmp_path / "a")) == {
        "model.mlpackage/Manifest.json",
        "model.mlpackage/Data/com.apple.CoreML/model.mlmodel",
        "model.mlpackage/Data/com.apple.CoreML/weights/weight.bin",
    }
    manifest = json.loads((tmp_path / "a" / coreml.PACKAGE / "Manifest.json").read_text())
    assert manifest["rootModelIdentifier"] in manifest["itemInfoEntries"]
    write(tmp_path / "c", context=128)
    other = json.loads((tmp_path / "c" / coreml.PACKAGE / "Manifest.json").read_text())
    assert other["rootModelIdentifier"] != manifest["rootModelIdentifier"]


def test_functions_and_the_tied_head_share_their_bytes(tmp_path):
    sizes = {}
    for name, roles in {
        "two": {},
        "one": {"prefill": 1},
        "duplicated": {"tied_head": "duplicated"},
        "whole": {"lm_head": "whole"},
    }.items():
        write(tmp_path / name, shape={"vocab": 4096}, **roles)
        sizes[name] = (tmp_path / name / coreml.PACKAGE / mlpackage.WEIGHTS).stat().st_size
    embedding = 4096 * 64
    assert 0 <= sizes["two"] - sizes["one"] < 5_000, "only the prefill's own constants are added"
    assert sizes["duplicated"] - sizes["two"] > embedding * 0.99
    assert abs(sizes["two"] - sizes["whole"]) < embedding * 0.1


def test_the_blob_file_says_how_many_blobs_it_has(tmp_path):
    write(tmp_path)
    data = (tmp_path / coreml.PACKAGE / mlpackage.WEIGHTS).read_bytes()
    count, version = struct.unpack_from("<II", data)
    headers = [at for at in range(64, len(data), 64) if data[at : at + 4] == b"\xef\xbe\xad\xde"]
    assert (count, version) == (len(headers), 2)
    for at in headers:
        _, _, size, offset = struct.unpack_from("<IIQQ", data, at)
        assert offset % 64 == 0
        assert offset + size <= len(data)


def test_each_state_is_written_once_and_nothing_is_infinite(tmp_path):
    for write_by in ("slice_update", "mask"):
        write(tmp_path / write_by, cache_write=write_by)
        package = open_package(tmp_path / write_by / coreml.PACKAGE)
        for function in ("main", "prefill"):
            ops = list(package.block(function).operations)
            written = [op.inputs["input"].arguments[0].name for op in ops if op.type == "write_state"]
            assert sorted(written) == ["keyCache", "valueCache"]
            assert ("slice_update" in {op.type for op in ops}) == (write_by == "slice_update")
            assert sum(op.type.startswith("constexpr_") for op in ops) == COMPRESSED + 4
    _, _, program = read_by_coremltools(tmp_path / "mask")
    for op in program.functions["prefill"].operations:
        values = op.val.val if op.op_type == "const" else None
        if isinstance(values, np.ndarray | np.generic) and values.dtype.kind == "f":
            assert np.isfinite(values).all(), op.name
            assert np.abs(values).max() <= 65504


def test_a_lost_matrix_or_write_is_noticed(tmp_path):
    write(tmp_path)
    spec = read_by_coremltools(tmp_path)[1]
    names = set(matrices_of(read_by_coremltools(tmp_path)[2], "main"))
    good = mlpackage.Expected(names, {"keyCache", "valueCache"})
    mlpackage.check(spec, {"main": good, "prefill": good})
    with pytest.raises(AssertionError, match="merged or lost"):
        mlpackage.check(spec, {"main": replace(good, constexprs=names | {"one more"}), "prefill": good})
    with pytest.raises(AssertionError, match="one write a state"):
        mlpackage.check(spec, {"main": good, "prefill": replace(good, states={"keyCache"})})


def test_metadata_and_signature(tmp_path):
    entry, config, _ = write(tmp_path)
    model, spec, _ = read_by_coremltools(tmp_path)
    assert (model.author, model.license, model.version) == ("Someone", "apache-2.0", "1")
    assert "someone/tiny" in model.short_description
    assert model.user_defined_metadata["satchel.contextLength"] == "64"
    assert model.user_defined_metadata["satchel.prefillLength"] == "8"
    assert model.user_defined_metadata["co.huggingface.exporters.name"] == "someone/tiny"
    assert spec.description.defaultFunctionName == "main"
    described = {f.name: f for f in spec.description.functions}
    for name, length in (("main", 1), ("prefill", 8)):
        features = {f.name: list(f.type.multiArrayType.shape) for f in described[name].input}
        assert features == {"inputIds": [1, length], "position": [1]}
        assert [f.name for f in described[name].state] == ["keyCache", "valueCache"]
        assert all(f.shortDescription for f in (*described[name].input, *described[name].output))
    assert entry.options["functions"] == {"prefill": "prefill", "decode": "main"}
    assert [s.shape for s in entry.states] == [(config.layers, 2, 64, 16)] * 2
    assert entry.states[0].dtype == entry.outputs[0].dtype == "float16"


def test_before_ios18_and_in_fp32_the_cache_goes_in_and_out(tmp_path):
    old, *_ = write(tmp_path / "old", target="iOS16")
    fp32, *_ = write(tmp_path / "fp32", "fp32")
    assert (old.prefill_length, old.options["functions"]) == (1, {"decode": "main"})
    assert (fp32.prefill_length, set(fp32.options["functions"])) == (8, {"decode", "prefill"})
    for entry, dtype in ((old, "float16"), (fp32, "float32")):
        assert [s.name for s in entry.inputs] == ["inputIds", "position", "keyCache", "valueCache"]
        assert [s.name for s in entry.outputs] == ["logits", "presentKeys", "presentValues"]
        assert (entry.states, entry.options["cache"], entry.outputs[0].dtype) == ((), "io", dtype)


@pytest.mark.parametrize(
    ("scheme", "roles", "says"),
    [
        ("palette", {"target": "iOS15"}, "target"),
        ("palette", {"layout": "channels_last"}, "layout"),
        ("palette", {"lm_head": "split0"}, "lm_head"),
        ("palette", {"lm_head": "halves"}, "lm_head"),
        ("palette", {"cache_write": "scatter"}, "cache_write"),
        ("palette", {"prefill": 128}, "longer than the context"),
        ("palette", {"target": "iOS17", "cache": "state"}, "iOS18"),
        ("palette", {"attention": "fused_sdpa"}, "rule 9"),
        ("palette", {"layout": "plain", "target": "iOS17", "attention": "fused_sdpa"}, "iOS18"),
        ("palette-rows16", {"target": "iOS17"}, "lut_groups = tensor"),
        ("int4", {"target": "iOS16"}, "iOS18"),
    ],
)
def test_a_plan_that_the_target_cannot_carry_out(tmp_path, scheme, roles, says):
    with pytest.raises(PlanError, match=says):
        write(tmp_path, scheme, **roles)


def test_a_weight_file_that_the_engine_cannot_map(tmp_path, monkeypatch):
    monkeypatch.setattr(coreml, "LARGEST_WEIGHT_FILE", 50_000)
    write(tmp_path / "gpu", layout="plain")
    with pytest.raises(PlanError, match="2 GiB"):
        write(tmp_path / "engine")


def test_numbers_that_fp16_cannot_hold_are_refused(tmp_path):
    reference, config = tiny_llama()
    name = "layers.1.mlp.up_proj"
    fp16, fp32 = (weights_of(reference, config, scheme) for scheme in ("fp16", "fp32"))
    mixed = MemoryWeights(
        {**fp16.matrices, "layers.1.mlp.up_proj": fp32.matrices["layers.1.mlp.up_proj"]}, fp16.vectors
    )
    with pytest.raises(PlanError, match="fp32 matrix"):
        coreml.write(tmp_path, mixed, config, coreml_plan(), INFO)
    (tmp_path / "int4").mkdir()
    int4 = weights_of(reference, config, "int4")
    m = int4.matrices[name]
    int4.matrices[name] = replace(m, scale=m.scale * np.float32(1 + 2.0**-20))
    with pytest.raises(PlanError, match="block scales"):
        coreml.write(tmp_path / "int4", int4, config, coreml_plan(), INFO)


@pytest.mark.smollm2
def test_smollm2_bundle_is_small_and_has_the_engine_s_form(smollm2_bundles):
    bundle = smollm2_bundles["coreml"]
    assert sum(p.stat().st_size for p in bundle.rglob("*") if p.is_file()) <= 95_000_000
    (package,) = bundle.rglob("*.mlpackage")
    opened = open_package(package)
    assert set(opened.functions) == {"main", "prefill"}
    for function in opened.functions:
        kinds = [op.type for op in opened.block(function).operations]
        assert kinds.count("conv") == 30 * 7 + 8
        assert kinds.count("constexpr_lut_to_dense") == 30 * 7 + 1 + 8
        assert kinds.count("write_state") == 2


@pytest.mark.smollm2
def test_lowering_smollm2_loses_nothing(tmp_path):
    """Its residual reaches 24,900 and its shapes are real; the weights are fp16, so the lowering alone is measured."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from satchel.export.families.base import DecoderConfig, Rope
    from satchel.export.source import resolve

    gguf = resolve("smollm2").path
    reference = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    c = reference.config
    dim = c.hidden_size // c.num_attention_heads
    frequencies = 1.0 / (c.rope_parameters["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim))
    config = DecoderConfig(
        family="llama",
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        layers=c.num_hidden_layers,
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        head_dim=dim,
        intermediate_size=c.intermediate_size,
        norm_eps=c.rms_norm_eps,
        activation="silu",
        tied_embeddings=True,
        max_position=c.max_position_embeddings,
        rope=Rope(tuple(float(f) for f in frequencies)),
    )
    weights = weights_of(reference, config, "fp16")
    text = "The bicycle was invented in the nineteenth century by a German baron, and riders pushed it with their feet."
    ids = np.array(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)(text)["input_ids"])
    with torch.no_grad():
        want = torch.log_softmax(reference(torch.from_numpy(ids)[None]).logits[0].double(), -1)
    del reference
    entry = coreml.write(tmp_path, weights, config, coreml_plan(context=128, prefill=16, lm_head="split8"), INFO)
    for precision, limit in (("fp32", 1e-5), ("fp16", 1e-3)):
        caller = Caller(tmp_path, entry, precision)
        got = np.concatenate([caller.prefill(ids[:-2]), caller.decode(ids[-2:])])
        logs = torch.log_softmax(torch.from_numpy(got.astype(np.float64)), -1)
        assert float((want.exp() * (want - logs)).sum(-1).mean()) < limit
