"""Opening packages: what is in them, and every way in which they may be wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError, SatchelError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.package import open_package

MODEL = "Data/com.apple.CoreML/model.mlmodel"
WEIGHTS = "Data/com.apple.CoreML/weights/weight.bin"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """relu(x W^T) with W in the weight file."""
    w = normal((8, 16))
    return save(tmp_path, lambda x: mb.relu(x=mb.linear(x=x, weight=w), name="y"), {"x": ((1, 16), "float32")})


def edit(package: Path, change: Any) -> Path:
    """Changes the proto of a package."""
    model = pb.Model.FromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())
    return package


def test_what_a_package_says(package: Path) -> None:
    program = mil.load(package)
    assert program.functions == ("main",)
    assert [(s.name, s.shape, s.dtype) for s in (*program.inputs, *program.outputs)] == [
        ("x", (1, 16), "float32"), ("y", (1, 8), "float32"),
    ]  # fmt: skip
    assert program.states == ()


def test_our_messages_read_what_coremltools_writes_without_loss(package: Path) -> None:
    data = (package / MODEL).read_bytes()
    ours, theirs = pb.Model.FromString(data), ct.proto.Model_pb2.Model.FromString(data)
    assert ours.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)
    assert ours.specificationVersion == theirs.specificationVersion == 9
    operations = ours.mlProgram.functions["main"].blockSpecializations["CoreML8"].operations
    their_operations = theirs.mlProgram.functions["main"].block_specializations["CoreML8"].operations
    assert [o.type for o in operations] == [o.type for o in their_operations]


@pytest.mark.parametrize(("target", "version"), [("iOS15", 6), ("iOS16", 7), ("iOS17", 8), ("iOS18", 9)])
def test_versions_and_a_bare_model_file(tmp_path: Path, target: str, version: int) -> None:
    place = {"x": ((2,), "float32")}
    path = save(tmp_path, lambda x: mb.relu(x=x, name="y"), place, target=getattr(ct.target, target))
    bare = tmp_path / "bare.mlmodel"
    shutil.copy(path / MODEL, bare)
    assert open_package(bare).model.specificationVersion == version
    for each in (path, bare):
        np.testing.assert_array_equal(mil.load(each).run({"x": [-1, 2]})["y"], [0, 2])
    edit(path, lambda m: setattr(m, "specificationVersion", 10))
    np.testing.assert_array_equal(mil.load(path).run({"x": [-1, 2]})["y"], [0, 2])


def test_truncated_and_missing(package: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="Core ML model"):
        mil.load(tmp_path / "absent.mlpackage")
    data = (package / MODEL).read_bytes()
    (package / MODEL).write_bytes(data[: len(data) - 9])
    with pytest.raises(FormatError, match=r"proto in model\.mlmodel"):
        mil.load(package)
    (package / MODEL).write_bytes(b"")
    with pytest.raises(FormatError, match="mlProgram"):
        mil.load(package)
    (package / "Manifest.json").write_text("{")
    with pytest.raises(FormatError, match=r"Manifest\.json"):
        mil.load(package)


@pytest.mark.parametrize("path", ["/etc/passwd", "../../../outside.mlmodel", "com.apple.CoreML/link", 7])
def test_a_manifest_that_points_outside(package: Path, tmp_path: Path, path: object) -> None:
    shutil.copy(package / MODEL, tmp_path / "outside.mlmodel")
    os.symlink(tmp_path / "outside.mlmodel", package / "Data/com.apple.CoreML/link")
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"]["0"]["path"] = path
    (package / "Manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FormatError, match="inside the package" if isinstance(path, str) else "Manifest"):
        mil.load(package)


@pytest.mark.parametrize(
    "name", ["@model_path/../../../outside.bin", "/etc/passwd", "@model_path//etc/passwd", "w.bin"]
)
def test_a_weight_file_outside(package: Path, tmp_path: Path, name: str) -> None:
    shutil.copy(package / WEIGHTS, tmp_path / "outside.bin")

    def rename(model: Any) -> None:
        for value in blobs(model):
            value.blobFileValue.fileName = name

    with pytest.raises(FormatError, match="weight file"):
        mil.load(edit(package, rename)).run({"x": normal((1, 16))})


def main(model: Any) -> Any:
    """The body of the default function."""
    function = model.mlProgram.functions["main"]
    return function.blockSpecializations[function.opset]


def blobs(model: Any) -> list[Any]:
    """The values of the default function that lie in a weight file."""
    values = [op.attributes["val"] for op in main(model).operations if op.type == "const"]
    return [v for v in values if v.WhichOneof("value") == "blobFileValue"]


def not_a_program(model: Any) -> None:
    model.neuralNetworkClassifier = b""


def unknown_op(model: Any) -> None:
    main(model).operations[-1].type = "relu7"


def unknown_argument(model: Any) -> None:
    main(model).operations[-1].inputs["alpha"].arguments.add().name = "x"


def missing_argument(model: Any) -> None:
    del main(model).operations[-1].inputs["x"]


def undefined_value(model: Any) -> None:
    main(model).operations[-1].inputs["x"].arguments[0].name = "nowhere"


def defined_twice(model: Any) -> None:
    main(model).operations[-1].outputs[0].name = "x"


def unknown_output(model: Any) -> None:
    main(model).outputs[0] = "nowhere"


def no_body(model: Any) -> None:
    model.mlProgram.functions["main"].opset = "CoreML99"


def unknown_element_type(model: Any) -> None:
    for op in main(model).operations:
        if op.type == "const":
            op.attributes["val"].type.tensorType.dataType = 99


def blob_beyond_the_file(model: Any) -> None:
    for value in blobs(model):
        value.blobFileValue.offset = 64 * 10**6


def shape_that_the_blob_has_not(model: Any) -> None:
    for value in blobs(model):
        value.type.tensorType.dimensions[0].constant.size = 2**40


def wrong_version(model: Any) -> None:
    model.specificationVersion = 11


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (not_a_program, "neuralNetworkClassifier.*convert the original model again"),
        (unknown_op, "op 'relu7'.*add a function to satchel/runtime/mil/ops.*relu6"),
        (unknown_argument, r"arguments of relu 'y'.*unknown \['alpha'\]"),
        (missing_argument, r"arguments of relu 'y'.*missing \['x'\]"),
        (undefined_value, "nowhere.*defined before"),
        (defined_twice, "'x' defined twice"),
        (unknown_output, "nowhere"),
        (no_body, "(opset|body) of function main"),
        (unknown_element_type, "element type.*99"),
        (blob_beyond_the_file, "offset of a blob"),
        (shape_that_the_blob_has_not, "128 of float32"),
        (wrong_version, "specification version"),
    ],
)
def test_malformed_programs_are_named(package: Path, change: Any, message: str) -> None:
    edit(package, change)
    with pytest.raises(FormatError, match=message):
        mil.load(package).run({"x": normal((1, 16))})


def test_changed_bytes_give_an_answer_or_a_named_error(package: Path) -> None:
    rng = np.random.default_rng(0)
    files = {name: (package / name).read_bytes() for name in (MODEL, WEIGHTS)}
    refused = 0
    for _ in range(300):
        name = MODEL if rng.random() < 0.8 else WEIGHTS
        data = bytearray(files[name])
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        (package / name).write_bytes(bytes(data))
        try:
            mil.load(package).run({"x": np.ones((1, 16))})
        except SatchelError:
            refused += 1
        (package / name).write_bytes(files[name])
    assert refused > 100
