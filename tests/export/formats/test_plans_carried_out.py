"""What a plan says is what the file holds: for every form that can be asked for, in each format."""

from __future__ import annotations

from dataclasses import dataclass

import coremltools as ct
import onnx_ir as ir
import pytest
from coreml_caller import INFO
from family_runner import Case, make
from tiny_llama import tiny_llama, weights_of

from satchel.devices.errors import PlanError
from satchel.devices.plan import ModelShape, Plan
from satchel.devices.planner import make_plan
from satchel.devices.profile import load_device
from satchel.devices.rulebook import rule
from satchel.export.formats import write_model
from satchel.export.shape import shape_of_decoder
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.pte import open_pte, unpack_coreml

TINY = {"layers": 2, "vocab": 251}
CONFIG = tiny_llama(**TINY)[1]
SHAPE = shape_of_decoder(CONFIG)
CONTEXT = 64
ACTIVATIONS = {"gelu": "gelu_tanh", "silu": "silu", "tanh": "half_tanh"}
SUM_AND_NORM = {"SkipSimplifiedLayerNormalization", "SkipLayerNormalization"}


def planned(device: str, weights: str, shape: ModelShape = SHAPE, **overrides: str) -> Plan:
    profile, _, format = device.partition(":")
    return make_plan(
        load_device(profile), shape, format=format or None, weights=weights, context=CONTEXT, overrides=overrides
    )


def written(folder, plan):
    symmetric = plan["scale_dtype"] == "bfloat16" and plan["weights"] == "int4"
    weights = weights_of(tiny_llama(**TINY)[0], CONFIG, "int4-sym" if symmetric else plan["weights"])
    return write_model(folder, weights, CONFIG, plan, INFO)


def in_packages(packages, entry) -> dict[str, str]:
    """Role -> value, as Core ML packages show it; of the decode function."""
    specs = [ct.models.MLModel(str(p), skip_model_load=True).get_spec() for p in packages]
    program = [spec.mlProgram.functions["main"] for spec in specs]
    ops = [op for f in program for block in f.block_specializations.values() for op in block.operations]
    types, names = {op.type for op in ops}, {output.name for op in ops for output in op.outputs}
    states = any(len(f.state) for s in specs for f in (s.description, *s.description.functions))
    parts = {n for n in names if "__part" in n and "__scale" not in n}
    version = specs[0].specificationVersion
    oldest = next(r for r in map(rule, ("CT16", "CT17", "CT18")) if r.number("specification") == version)
    called = [entry, *(getattr(entry, "chunks", None) or ())]
    cache = next(s for e in called for s in (*e.states, *e.inputs) if s.name == "keyCache")
    fused, einsum = "scaled_dot_product_attention" in types, "einsum" in types
    return {
        "target": oldest.text("target"),
        "opset": program[0].opset,
        "linear": "conv1x1" if "conv" in types else "linear",
        "attention": "fused_sdpa" if fused else "per_head" if einsum else "batched",
        "norm": "divided_by_peak" if {"reduce_max", "maximum", "rsqrt"} <= types else "plain",
        "rotary": "sin_cos" if {"sin", "cos"} & types else "tables",
        "activation": next((name for op, name in ACTIVATIONS.items() if op in types), "times_sigmoid"),
        "embedding": "gather" if "gather" in types else "host",
        "cache": "state" if states else "io",
        "cache_write": "slice_update" if "slice_update" in types else "mask" if states else "host",
        "cache_dtype": cache.dtype,
        "lm_head": f"split{len(parts)}" if parts else "whole",
        "chunks": str(len(packages)),
        "compute": entry.options["compute"],
        "layout": entry.options["layout"],
        "context_length": str(entry.context_length),
        "prefill_length": str(entry.prefill_length),
    }  # fmt: skip


def agree(plan: Plan, found: dict[str, str]) -> None:
    said = {choice.role: choice.value for choice in plan.choices}
    assert {role: said[role] for role in found} == found


COREML = [
    {}, {"layout": "plain"}, {"layout": "plain", "attention": "batched"},
    {"linear": "linear", "compute": "cpuAndNeuralEngine"},
    {"compute": "cpuAndGPU"}, {"compute": "cpuAndGPU", "linear": "conv1x1"}, {"compute": "all"}, {"compute": "cpuOnly"},
    {"cache": "io"}, {"cache": "state"}, {"cache": "state", "cache_write": "mask"}, {"target": "iOS17"},
    {"prefill_length": "7"}, {"prefill_length": "1"}, {"target": "iOS16", "linear": "linear"}, {"chunks": "2"},
    {"chunks": "2", "cache": "state"}, {"lm_head": "split8"}, {"lm_head": "split3"},
]  # fmt: skip


@pytest.mark.parametrize("overrides", COREML, ids=lambda o: " ".join(f"{k}={v}" for k, v in o.items()) or "usual")
def test_coreml(tmp_path, overrides):
    plan = planned("iphone-16", "palette", **overrides)
    entry = written(tmp_path, plan)
    agree(plan, in_packages(sorted(tmp_path.glob("*.mlpackage")), entry))


@pytest.mark.parametrize("weights", ["int8", "int4", "fp16", "fp32"])
def test_coreml_by_weights(tmp_path, weights):
    plan = planned("iphone-16", weights)
    entry = written(tmp_path, plan)
    agree(plan, in_packages(sorted(tmp_path.glob("*.mlpackage")), entry))


def test_a_tied_head_is_shared_or_copied(tmp_path):
    sizes = {}
    for value in ("shared", "duplicated"):
        (tmp_path / value).mkdir()
        written(tmp_path / value, planned("iphone-16", "palette", lm_head="split4", tied_head=value))
        sizes[value] = next((tmp_path / value).rglob("weight.bin")).stat().st_size
    assert sizes["duplicated"] - sizes["shared"] >= SHAPE.vocab_size * SHAPE.hidden_size * 0.9


def in_onnx(path, entry) -> dict[str, str]:
    """The same of a graph for onnxruntime."""
    model = ir.load(path)
    nodes = list(model.graph.all_nodes())
    types = {node.op_type for node in nodes}
    narrow = [n for n in nodes if n.op_type == "MatMulNBits" and n.attributes["bits"].as_int() == 4]
    levels = {n.attributes["accuracy_level"].as_int() for n in narrow or nodes if n.op_type == "MatMulNBits"}
    sums = [node for node in nodes if node.op_type in SUM_AND_NORM]  # the last norm of a model reads a sum in any case
    rotates = any(n.attributes["do_rotary"].as_int() for n in nodes if n.op_type == "GroupQueryAttention")
    past = next(s for s in entry.inputs if s.name.startswith("past"))
    return {
        "target": f"opset{model.opset_imports['']}",
        "linear": "matmul_nbits" if "MatMulNBits" in types else "matmul",
        "attention": "group_query_attention" if "GroupQueryAttention" in types else "single_ops",
        "embedding": "gather_block_quantized" if "GatherBlockQuantized" in types else "gather",
        "norm": "with_residual_sum" if len(sums) > 1 else "by_itself",
        "rotary": "in_attention" if rotates else "tables",
        "activation": "quick_gelu" if "QuickGelu" in types else "gelu",
        "cache_dtype": past.dtype,
        "lm_head": "last_token" if entry.outputs[0].shape[1] == 1 else "all",
        **({"accuracy_level": str(*levels)} if levels else {}),
    }


@pytest.mark.parametrize("weights", ["palette", "int8", "int4", "fp16", "fp32"])
@pytest.mark.parametrize("device", ["pixel-9", "raspberry-pi-4:onnx"])
def test_onnx(tmp_path, device, weights):
    plan = planned(device, weights)
    entry = written(tmp_path, plan)
    agree(plan, in_onnx(tmp_path / entry.path, entry))


@dataclass
class Delegated:
    """Of the delegate's package, of which the manifest holds the options alone."""

    options: dict[str, str]
    context_length: int = CONTEXT
    prefill_length: int = 1
    inputs: tuple[TensorSpec, ...] = ()
    states: tuple[TensorSpec, ...] = (TensorSpec("keyCache", (), "float16"),)


def in_operators(operators: set[str], entry) -> dict[str, str]:
    """The same of ExecuTorch's operators beside XNNPACK."""
    return {
        "attention": "custom_sdpa" if "llama::custom_sdpa" in operators else "capped_products",
        "embedding": "embedding_byte" if "quantized_decomposed::embedding_byte" in operators else "gather",
        "lm_head": "last_token" if entry.outputs[0].shape[1] == 1 else "all",
    }


@pytest.mark.parametrize(
    ("device", "weights", "overrides"),
    [
        ("pixel-9:executorch", "palette", {}), ("raspberry-pi-4", "int4", {}), ("pixel-9:executorch", "fp32", {}),
        ("iphone-16:executorch", "palette", {}), ("iphone-16:executorch", "palette", {"lm_head": "split4"}),
        ("iphone-16:executorch", "int8", {"target": "coreml", "layout": "plain"}),
        ("iphone-16:executorch", "palette", {"compute": "cpuAndGPU"}),
        ("iphone-16:executorch", "palette", {"target": "xnnpack"}),
    ],
)  # fmt: skip
def test_executorch(tmp_path, device, weights, overrides):
    plan = planned(device, weights, **overrides)
    entry = written(tmp_path, plan)
    with open_pte(tmp_path / entry.path) as pte:
        operators = {operator.name for operator in pte.plan.operators}
        (backend,) = {delegate.id for delegate in pte.plan.delegates}
        if backend == "CoreMLBackend":
            package = unpack_coreml(pte.payload(pte.plan.delegates[0]), tmp_path / "payload")
    assert backend == ("CoreMLBackend" if plan["target"] == "coreml" else "XnnpackBackend")
    if plan["target"] == "coreml":
        found = in_packages([package], Delegated(entry.options["package"]))
        agree(plan, {role: value for role, value in found.items() if role != "target"})
        return
    agree(plan, in_operators(operators, entry))


def test_what_no_exporter_writes_is_refused_before():
    for overrides in ({"embedding": "host"}, {"norm": "plain"}, {"rotary": "sin_cos"}, {"activation": "silu"}):
        with pytest.raises(PlanError, match=r"rule (CH|NE)\d\d"):
            planned("iphone-16", "palette", **overrides)


FAMILIES = {
    "capped scores": {"model_type": "gemma2", "head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 6},
    "norms after": {"model_type": "olmo2"},
    "partial rotary, LayerNorm, GELU": {"model_type": "phi", "partial_rotary_factor": 0.5, "hidden_act": "gelu_new"},
}


@pytest.mark.parametrize("device", ["iphone-16", "pixel-9", "pixel-9:executorch"])
@pytest.mark.parametrize("options", FAMILIES.values(), ids=FAMILIES)
def test_what_is_special_about_a_family(tmp_path, device, options):
    made = make(Case(options).json(), CONTEXT)
    plan = planned(device, "fp32", shape_of_decoder(made.config))
    entry = write_model(tmp_path, made.weights, made.config, plan, INFO)
    if plan.format == "coreml":
        agree(plan, in_packages(sorted(tmp_path.glob("*.mlpackage")), entry))
    elif plan.format == "onnx":
        agree(plan, in_onnx(tmp_path / entry.path, entry))
    else:
        with open_pte(tmp_path / entry.path) as pte:
            agree(plan, in_operators({operator.name for operator in pte.plan.operators}, entry))
