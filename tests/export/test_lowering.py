"""A package of ours against the decoder in torch, value by value; and what fp16 makes of a norm that squares."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import family_runner
import numpy as np
import pytest
from coreml_caller import INFO, coreml_plan
from tiny_folder import tiny_folder
from tiny_llama import tiny_llama, weights_of
from tiny_phi import phi_folder, tiny_phi

from satchel.export.checkpoint import open_checkpoint
from satchel.export.families.registry import load_family
from satchel.export.formats import coreml
from satchel.export.lowering import against_torch, landmarks
from satchel.export.ops.recording import recorded
from satchel.export.palettize.tensors import PlainTensor
from satchel.export.source import resolve
from satchel.runtime import mil
from satchel.runtime.bundle import open_bundle
from satchel.runtime.coreml.difference import Side
from satchel.runtime.coreml.sample_inputs import sample_inputs
from satchel.runtime.errors import UsageError
from satchel.runtime.mil import mil_pb2 as pb

MODEL = "Data/com.apple.CoreML/model.mlmodel"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("tiny"), tokenizer=False)


def written(folder: Path, scheme: str = "palette", tiny: Callable = tiny_llama, **roles: str) -> Side:
    reference, config = tiny(vocab=320)
    coreml.write(folder, weights_of(reference, config, scheme), config, coreml_plan(**roles), INFO)
    program = mil.load(folder / coreml.PACKAGE)
    return Side(program, "tiny", "prefill" if "prefill" in program.functions else None)


def drawn(side: Side) -> dict[str, np.ndarray]:
    inputs = sample_inputs(side.program.package, side.function)
    return {n: np.zeros_like(v) if "Cache" in n else v for n, v in inputs.items()}


@pytest.mark.parametrize(
    ("scheme", "roles"),
    [
        ("palette", {}),
        ("palette", {"layout": "plain"}),
        ("palette", {"target": "iOS17", "lm_head": "whole"}),
        ("int4", {"layout": "plain", "lm_head": "whole"}),
        ("fp32", {}),
    ],
)
def test_every_landmark_of_a_lowering_agrees(tmp_path: Path, checkpoint: Path, scheme: str, roles: dict) -> None:
    side = written(tmp_path, scheme, **roles)
    report = against_torch(side, str(checkpoint), drawn(side))
    names = {row.b.name for row in report.rows}
    assert len(names) == len(report.rows) == 2 + 1 + 2 * (2 + 7 + 4)
    assert {"embed_tokens", "norm", "lm_head", "layers.1.after_mlp", "layers.0.self_attn", "layers.1.mlp"} <= names
    assert report.equal
    # The rotary tables are kept in the program's type; all else is computed in fp32 from the same weights.
    assert max(row.measure.error for row in report.rows) < (1e-5 if scheme == "fp32" else 2e-3)
    assert "logits" in {row.a.output for row in report.rows}


@pytest.mark.parametrize("roles", [{}, {"layout": "plain", "lm_head": "whole"}], ids=["engine", "plain"])
def test_every_landmark_of_a_phi_agrees(tmp_path: Path, roles: dict) -> None:
    side = written(tmp_path / "package", tiny=tiny_phi, **roles)
    report = against_torch(side, str(phi_folder(tmp_path / "phi")), drawn(side))
    names = {row.b.name for row in report.rows}
    assert len(names) == len(report.rows) == 2 + 1 + 2 * (1 + 6 + 4)
    assert {"norm", "lm_head", "layers.1.branches", "layers.1.after_mlp", "layers.0.mlp"} <= names
    assert report.equal


LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [3.0] * 8}


@pytest.mark.parametrize(
    "options",
    [
        {"model_type": "phi3", "rope_parameters": LONGROPE, "original_max_position_embeddings": 16},
        {"model_type": "olmo2"},
        {"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 4},
        {"model_type": "stablelm", "qk_layernorm": True, "use_parallel_residual": True},
    ],
    ids=lambda options: options["model_type"],
)
def test_landmarks_of_other_families_agree(tmp_path: Path, options: dict) -> None:
    made = family_runner.make(json.dumps(options), 64)
    coreml.write(tmp_path, made.weights, made.config, coreml_plan(), INFO)
    side = Side(mil.load(tmp_path / coreml.PACKAGE), "tiny", "prefill")
    report = against_torch(side, str(made.folder), drawn(side))
    first = "layers.1.branches" if made.config.parallel else "layers.1.after_attention"
    assert {"lm_head", first, "layers.1.after_mlp", "layers.1.self_attn"} <= {row.b.name for row in report.rows}
    assert report.equal


def test_a_fault_in_the_lowering_is_found_where_it_is(tmp_path: Path, checkpoint: Path) -> None:
    """The norm before layer 1's attention gets the gain of another."""
    written(tmp_path)
    path = tmp_path / coreml.PACKAGE / MODEL
    model = pb.Model()
    model.ParseFromString(path.read_bytes())
    operations = model.mlProgram.functions["prefill"].blockSpecializations["CoreML8"].operations
    read = (a for op in operations for argument in op.inputs.values() for a in argument.arguments)
    next(a for a in read if a.name == "layers__1__input_layernorm").name = "layers__0__input_layernorm"
    path.write_bytes(model.SerializeToString())
    broken = Side(mil.load(tmp_path / coreml.PACKAGE), "broken", "prefill")
    report = against_torch(broken, str(checkpoint), drawn(broken))
    assert report.first and report.first.b.name in ("layers.1.self_attn.q_proj", "layers.1.self_attn.k_proj")
    assert report.first.layer and report.first.layer.number == 1


def test_what_cannot_be_compared(tmp_path: Path, checkpoint: Path) -> None:
    side = written(tmp_path)
    with pytest.raises(UsageError, match="starts"):
        against_torch(side, str(checkpoint), drawn(side) | {"position": np.array([3], np.int32)})
    other = tiny_folder(tmp_path / "other", tokenizer=False, layers=3)
    with pytest.raises(UsageError, match="weights of tiny"):
        against_torch(side, str(other), drawn(side))


def naive(package: Path, to: Path) -> Path:
    """A copy of a package whose norms are plain RMSNorms: where ours divide by the row's largest |x|, they do by 1."""
    shutil.copytree(package, to)
    model = pb.Model()
    model.ParseFromString((to / MODEL).read_bytes())
    for function in model.mlProgram.functions.values():
        for block in function.blockSpecializations.values():
            for op in block.operations:
                if op.type == "real_div":
                    divisor = op.inputs["y"].arguments[0]
                    divisor.Clear()
                    divisor.value.type.tensorType.dataType = 10  # fp16
                    divisor.value.immediateValue.tensor.bytes.values = np.float16(1).tobytes()
    (to / MODEL).write_bytes(model.SerializeToString())
    return to


class Original:
    """The checkpoint's own weights, rounded to fp16."""

    def __init__(self) -> None:
        self.config, self._tensors = load_family(open_checkpoint(resolve("smollm2").path))
        self._names = set(self._tensors.names())

    def matrix(self, name: str) -> PlainTensor:
        return PlainTensor(self._tensors.read(name).astype(np.float16))

    def vector(self, name: str) -> np.ndarray:
        return self._tensors.read(name).astype(np.float32)

    def has(self, name: str) -> bool:
        return name in self._names


CHAT = np.array([[1, 504, 19018, 436, 11396, 281, 260, 8533, 4763, 6420, 411, 253, 4700, 281, 12180, 28]], np.int32)
"""<|im_start|> and a text; the first token of all is where the residual grows."""


def ran(package: Path) -> mil.OverflowReport | None:
    """What overflows in the prefill of CHAT in fp16."""
    program, watch = mil.load(package), mil.Watch()
    length = program.signature("prefill")[0][0].shape[1]
    inputs = {"inputIds": np.resize(CHAT, (1, int(length))), "position": np.zeros(1, np.int32)}
    out = program.run(inputs, "prefill", program.make_state("prefill"), "fp16", watch)
    assert np.isfinite(out["logits"]).all()  # a device would say nothing
    return watch.report


@pytest.mark.smollm2
def test_smollm2_under_a_naive_norm_overflows_in_the_layer_where_its_residual_passes_255_9(
    smollm2_bundles: dict[str, Path], tmp_path: Path
) -> None:
    """Squares pass 65504 from |x| = 255.9 on. Where the residual first does is computed by torch alone."""
    weights = Original()
    residual = {
        name: float(np.abs(value).max())
        for name, value in recorded(weights.config, weights, CHAT)
        if name == "embed_tokens" or ".after_" in name
    }
    assert max(residual.values()) == pytest.approx(24_900, rel=5e-3)
    before = next(name for name, largest in residual.items() if largest >= 255.9)
    layer = int(before.split(".")[1]) + before.endswith("after_mlp")  # of the norm that comes next

    coreml.write(tmp_path, weights, weights.config, coreml_plan(context=64, prefill=CHAT.shape[1]), INFO)
    assert ran(tmp_path / coreml.PACKAGE) is None
    report = ran(naive(tmp_path / coreml.PACKAGE, tmp_path / "naive.mlpackage"))
    assert report and (report.op, report.kind, report.function) == ("mul", "overflow", "prefill")
    assert report.layer == f"layer {layer} of 30 (counted from 0)" == "layer 2 of 30 (counted from 0)"
    assert report.largest_input == pytest.approx(residual[before], rel=5e-3)
    assert "before it is squared" in report.remedy and "rules 10 and 24" in report.remedy

    bundle = open_bundle(smollm2_bundles["coreml"], verify=False)
    assert ran(bundle.folder / bundle.manifest.entry.path) is None


@pytest.mark.smollm2
def test_smollm2_s_lowering_agrees_with_torch_op_by_op(smollm2_bundles: dict[str, Path]) -> None:
    bundle = open_bundle(smollm2_bundles["coreml"], verify=False)
    program = mil.load(bundle.folder / bundle.manifest.entry.path)
    for precision, limit in (("fp32", 5e-3), ("fp16", 0.1)):  # the tables of cos and sin are fp16 in both
        side = Side(program, "smollm2", "prefill", precision)
        report = against_torch(side, "smollm2", sample_inputs(program.package, "prefill"))
        assert report.equal and len(report.rows) == 3 + 30 * 13 and report.overflows[0] is None
        assert max(row.measure.error for row in report.rows) < limit


def test_landmarks_are_values_of_the_right_shape(tmp_path: Path, checkpoint: Path) -> None:
    config, _ = load_family(open_checkpoint(resolve(str(checkpoint)).path))
    places = landmarks(written(tmp_path).graph(), config)
    hidden = {n for n, p in places.items() if p.plain_shape == (64, 8)}
    assert {"layers.0.after_attention", "layers.1.mlp.down_proj", "norm", "layers.0.self_attn"} <= hidden
    assert places["layers.0.mlp"].plain_shape == (128, 8) and places["lm_head"].plain_shape == (8, 320)
