"""What is read out of a package, against what coremltools reads out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
from coremltools.converters.mil.mil.types import type_mapping
from mil_programs import mb, normal, save

from satchel.runtime.coreml.inspection import inspect_program, merged
from satchel.runtime.coreml.weights import Extent
from satchel.runtime.mil import mil_pb2 as pb

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"
X = {"x": ((1, 64, 1, 8), "float16")}


def dense(*shape: int, seed: int = 0) -> np.ndarray:
    return normal(shape, seed).astype(np.float16)


def sub_byte(values: np.ndarray, name: str) -> np.ndarray:
    return values.astype(type_mapping.nptype_from_builtin(type_mapping.string_to_builtin(name)))


def two_layers(x: Any) -> Any:
    y = mb.conv(x=x, weight=dense(64, 64, 1, 1), name="first")
    return mb.conv(x=y, weight=dense(128, 64, 1, 1, seed=1), bias=dense(128), name="second")


def spec_of(path: Path) -> Any:
    return ct.proto.Model_pb2.Model.FromString((path / MODEL).read_bytes())


def model_of(path: Path) -> ct.models.MLModel:
    return ct.models.MLModel(spec_of(path), weights_dir=str((path / WEIGHTS).parent), skip_model_load=True)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save(tmp_path, two_layers, X)


def test_interface_ops_and_versions_are_those_of_coremltools(tmp_path: Path) -> None:
    def body(x: Any, s: Any) -> Any:
        mb.coreml_update_state(state=s, value=mb.add(x=mb.read_state(input=s), y=np.float16(1)))
        count = mb.reduce_sum(x=x, axes=[0, 1, 2, 3], keep_dims=False)
        return mb.cond(
            pred=mb.greater(x=count, y=np.float16(0)), _true_fn=lambda: mb.relu(x=x), _false_fn=lambda: mb.abs(x=x)
        )

    path = save(tmp_path, body, X, {"s": ((2, 32), "float16")})
    spec, found = spec_of(path), inspect_program(path)
    (function,) = found["functions"]
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    assert found["specification_version"] == spec.specificationVersion
    assert function["opset"] == spec.mlProgram.functions["main"].opset
    for ours, theirs in (("inputs", "input"), ("outputs", "output"), ("states", "state")):
        assert [v["name"] for v in function[ours]] == [f.name for f in getattr(spec.description, theirs)]
    state = function["states"][0]
    assert (state["shape"], state["dtype"], state["declared_dtype"]) == ([2, 32], "float16", "float16")
    inner = [op for o in block.operations for b in o.blocks for op in b.operations]
    assert function["ops"] == dict(Counter(op.type for op in (*block.operations, *inner)))
    assert function["ops_in_blocks"] == len(inner) == 2


@pytest.mark.parametrize(
    ("target", "version", "ios", "macos"),
    [("iOS15", 6, "15", "12"), ("iOS16", 7, "16", "13"), ("iOS17", 8, "17", "14"), ("iOS18", 9, "18", "15")],
)
def test_minimum_systems(tmp_path: Path, target: str, version: int, ios: str, macos: str) -> None:
    aim = getattr(ct.target, target)
    path = save(tmp_path, lambda x: mb.relu(x=x), {"x": ((1, 4), "float32")}, target=aim)
    found = inspect_program(path)
    assert (found["specification_version"], found["minimum_os"]) == (version, {"iOS": ios, "macOS": macos})
    assert found["minimum_os"]["iOS"] == aim.name.removeprefix("iOS")


def test_weights_are_those_of_coremltools(network: Path) -> None:
    model = model_of(network)
    theirs = cto.get_weights_metadata(model, weight_threshold=16)
    found = inspect_program(network)
    assert found["weights"]["count"] == len(theirs)
    assert {w["name"]: (tuple(w["shape"]), w["elements"]) for w in found["largest"]} == {
        name: (data.val.shape, data.val.size) for name, data in theirs.items()
    }
    total = sum(data.val.nbytes for data in theirs.values())
    assert found["weights"]["blob_bytes"] == found["weights"]["expanded_bytes"] == total
    assert found["weights"]["bits_per_weight"] == 16
    (file,) = found["weight_files"]
    assert file["bytes"] == (network / WEIGHTS).stat().st_size == file["data_bytes"] + file["other_bytes"]
    assert found["bytes"] == sum(p.stat().st_size for p in network.rglob("*") if p.is_file())


PALETTIZE = cto.OpPalettizerConfig
QUANTIZE = cto.OpLinearQuantizerConfig


@pytest.mark.parametrize(
    ("how", "label", "bits"),
    [
        (("palettize", PALETTIZE(mode="uniform", nbits=4)), "palette 4 bit, per tensor", 4),
        (
            ("palettize", PALETTIZE(mode="uniform", nbits=2, granularity="per_grouped_channel", group_size=16)),
            "palette 2 bit, groups of 16",
            2,
        ),
        (("quantize", QUANTIZE(mode="linear_symmetric", dtype="int8")), "scale int8, per channel", 8),
        (
            ("quantize", QUANTIZE(mode="linear_symmetric", dtype="int4", granularity="per_block", block_size=32)),
            "scale int4, blocks of 1 x 32",
            4,
        ),
        (("prune", cto.OpMagnitudePrunerConfig(target_sparsity=0.5, weight_threshold=64)), "sparse", 9),
    ],
)
def test_compression_as_coremltools_writes_it(network: Path, how: Any, label: str, bits: int, tmp_path: Path) -> None:
    kind, config = how
    passes = {
        "palettize": cto.palettize_weights, "quantize": cto.linear_quantize_weights, "prune": cto.prune_weights,
    }  # fmt: skip
    model = model_of(network)
    small = passes[kind](model, cto.OptimizationConfig(global_config=config))
    path = tmp_path / "small.mlpackage"
    small.save(str(path))
    found, plain = inspect_program(path), inspect_program(network)
    rows = {row["compression"]: row for row in found["weights"]["by_scheme"]}
    assert rows[label]["elements"] == 64 * 64 + 128 * 64
    assert rows[label]["expanded_bytes"] == 2 * rows[label]["elements"]
    assert 0.99 * bits < rows[label]["bits_per_weight"] < 1.3 * bits
    assert found["weights"]["expanded_bytes"] == plain["weights"]["expanded_bytes"]
    assert found["weights"]["blob_bytes"] == blob_bytes_by_coremltools(path)


def blob_bytes_by_coremltools(path: Path) -> int:
    """Bytes of every blob, packed, by the types and shapes in coremltools' own proto."""
    spec = spec_of(path)
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    stored = {
        v.blobFileValue.offset: v
        for op in block.operations
        for v in (*op.attributes.values(), *(b.value for a in op.inputs.values() for b in a.arguments))
        if v.WhichOneof("value") == "blobFileValue"
    }
    bits = {10: 16, 11: 32, 21: 8, 25: 4, 31: 8, 35: 4, 36: 2, 37: 1, 38: 6, 39: 3}
    sizes = []
    for value in stored.values():
        tensor = value.type.tensorType
        count = int(np.prod([d.constant.size for d in tensor.dimensions]))
        sizes.append(-(-count * bits[tensor.dataType] // 8))
    return sum(sizes)


def test_a_scale_on_a_palette_and_a_sparse_palette(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        indices = sub_byte(np.arange(64 * 64).reshape(64, 64, 1, 1) % 16, "uint4")
        table = mb.constexpr_lut_to_dense(indices=indices, lut=dense(1, 1, 1, 1, 16, 1))
        y = mb.conv(x=x, weight=mb.constexpr_blockwise_shift_scale(data=table, scale=dense(64, 1, 1, 1)))
        mask = np.arange(64 * 64).reshape(64, 64, 1, 1) % 2
        codes = sub_byte(np.arange(mask.sum()) % 4, "uint2")
        mask, values = mb.constexpr_lut_to_sparse(
            indices_mask=sub_byte(mask, "uint1"), indices_nonzero_data=codes, lut=dense(1, 1, 1, 1, 4, 1)
        )
        return mb.conv(x=y, weight=mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask))

    rows = {r["compression"]: r for r in inspect_program(save(tmp_path, body, X))["weights"]["by_scheme"]}
    scaled = rows["scale float16, per channel of palette 4 bit, per tensor"]
    assert scaled["blob_bytes"] == 64 * 64 // 2 + 2 * 16 + 2 * 64
    sparse = rows["sparse palette 2 bit, per tensor"]
    assert sparse["blob_bytes"] + sparse["immediate_bytes"] == 64 * 64 // 8 + 64 * 64 // 2 // 4 + 2 * 4
    assert sparse["expanded_bytes"] == 2 * 64 * 64


def test_stored_twice_and_shared_are_told_apart(tmp_path: Path) -> None:
    same = dense(64, 64, 1, 1)

    def twice(x: Any) -> Any:
        return mb.conv(x=mb.conv(x=x, weight=same), weight=same + np.float16(0))

    found = inspect_program(save(tmp_path, twice, X, name="twice"))["duplicates"]
    assert (found["stored_twice"]["count"], found["stored_twice"]["wasted_bytes"]) == (1, same.nbytes)
    assert found["shared"]["count"] == 0
    path = save(tmp_path, {"main": two_layers, "other": two_layers}, X, name="functions")
    found = inspect_program(path)
    both = found["duplicates"]
    assert both["stored_twice"]["count"] + both["shared"]["count"] == 3
    model = pb.Model.FromString((path / MODEL).read_bytes())
    blobs = {
        op.attributes["val"].blobFileValue.offset
        for f in model.mlProgram.functions.values() for b in f.blockSpecializations.values() for op in b.operations
        if op.attributes["val"].WhichOneof("value") == "blobFileValue"
    }  # fmt: skip
    assert (both["shared"]["count"] == 3) is (len(blobs) == 3)


def test_two_headers_of_the_same_data_are_shared_not_stored_twice(tmp_path: Path) -> None:
    path = save(tmp_path, two_layers, {"x": ((1, 64, 1, 8), "float16")})
    model = pb.Model.FromString((path / MODEL).read_bytes())
    function = model.mlProgram.functions["main"]
    (block,) = function.blockSpecializations.values()
    consts = [op for op in block.operations if op.attributes["val"].WhichOneof("value") == "blobFileValue"]
    first, second = consts[0], consts[1]
    second.CopyFrom(first)
    second.outputs[0].name = "again"
    second.attributes["name"].immediateValue.tensor.strings.values[0] = "again"
    (path / MODEL).write_bytes(model.SerializeToString())
    found = inspect_program(path)["duplicates"]
    assert (found["shared"]["count"], found["stored_twice"]["count"]) == (1, 0)
    assert found["shared"]["largest"][0]["uses"] == [f"main/{first.outputs[0].name}", "main/again"]


def test_overlapping_bytes_are_counted_once() -> None:
    pieces = [Extent("a", 0, 10), Extent("a", 5, 10), Extent("a", 15, 5), Extent("b", 0, 1), Extent("a", 6, 2)]
    assert merged(pieces) == [Extent("a", 0, 15), Extent("a", 15, 5), Extent("b", 0, 1)]


def test_images_ranges_and_defaults_as_described(tmp_path: Path) -> None:
    path = save(tmp_path, lambda x: mb.relu(x=x), {"x": ((1, 3, 8, 8), "float32")})
    model = pb.Model.FromString((path / MODEL).read_bytes())
    image = model.description.input[0].type.imageType
    image.width, image.height, image.colorSpace = 8, 16, 30
    model.description.input[0].type.isOptional = True
    array = model.description.output[0].type.arrayType
    array.shapeRange.sizeRanges.add(lowerBound=1, upperBound=-1)
    array.floatDefault = 0.5
    (path / MODEL).write_bytes(model.SerializeToString())
    (function,) = inspect_program(path)["functions"]
    (x,), (y,) = function["inputs"], function["outputs"]
    assert (x["kind"], x["colors"], x["size"], x["optional"]) == ("image", "BGR", [8, 16], True)
    assert (y["ranges"], y["default"]) == ([[1, -1]], 0.5)


def test_the_commands(network: Path) -> None:
    """Text and JSON, exit codes, and no converter imported on the way."""
    code = (
        "import sys; from typer.testing import CliRunner; from satchel.cli.coreml import app\n"
        "run = lambda *a: CliRunner().invoke(app, list(a))\n"
        f"p = {str(network)!r}\n"
        "for a in (['inspect', p], ['check', p], ['inspect', p, '--json'], ['check', p, '--json', '--target', 'H16'],\n"
        "          ['check', p, '--target', 'iOS17'], ['check', p, '--target', 'x'], ['inspect', p + 'x']):\n"
        "    r = run(*a); print('EXIT', r.exit_code); print(r.stdout)\n"
        "assert not {'torch', 'coremltools', 'scipy', 'onnxruntime'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    texts = done.stdout.split("EXIT ")[1:]
    assert [int(t.split("\n", 1)[0]) for t in texts] == [0, 0, 0, 0, 1, 2, 2]
    described, judged = (json.loads(t.split("\n", 1)[1]) for t in texts[2:4])
    assert described["weights"]["count"] == 3
    assert judged["counts"]["error"] == 0
    assert "second" in texts[0] or "conv 2" in texts[0]
    assert "CM01" in texts[4]
