"""A model as an app calls it: packages that coremltools saved, against the torch modules that they were made of."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.models.datatypes import Array
from coremltools.models.neural_network import NeuralNetworkBuilder
from mil_programs import mb, normal, save
from torch import nn

from satchel import coreml
from satchel.runtime.coreml.features import MAX_DIMENSION
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.kinds import KINDS

MODEL = "Data/com.apple.CoreML/model.mlmodel"
IN, OUT = "x", "y"


def convert(path: Path, module: nn.Module, example: Any, inputs: list[Any] | None = None, **options: Any) -> Path:
    """Traces a module, converts it with fp32 inside, and saves it."""
    examples = example if isinstance(example, tuple) else (example,)
    traced = torch.jit.trace(module.eval(), examples)
    options = {"compute_precision": ct.precision.FLOAT32, "minimum_deployment_target": ct.target.iOS16} | options
    if "classifier_config" not in options:
        options.setdefault("outputs", [ct.TensorType(name=OUT)])
    inputs = inputs or [ct.TensorType(name=IN, shape=examples[0].shape)]
    ct.convert(traced, inputs=inputs, **options).save(str(path))
    return path


def edit(package: Path, change: Callable[[Any], Any]) -> Path:
    """Changes the proto of a package."""
    model = pb.Model.FromString((package / MODEL).read_bytes())
    change(model)
    (package / MODEL).write_bytes(model.SerializeToString())
    return package


@torch.no_grad()
def by_torch(module: nn.Module, *arrays: Any) -> np.ndarray:
    return module(*[torch.as_tensor(np.asarray(a)) for a in arrays]).numpy()


class Mix(nn.Module):
    """A convolution that depends on the order of channels; with weights that spread 0..255 over 0..255 and beyond."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(channels, channels, 1)
        with torch.no_grad():
            self.conv.bias += 40

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * 1.3


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("color", ["RGB", "BGR", "GRAYSCALE", "GRAYSCALE_FLOAT16"])
def test_images_in_and_out(tmp_path: Path, color: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image_module = pytest.importorskip("PIL.Image")
    channels = 1 if color.startswith("GRAY") else 3
    module = Mix(channels)
    scale, bias = 0.5, [10.0, 20.0, 30.0][:channels]
    layout = ct.colorlayout[color]
    path = convert(
        tmp_path / "m.mlpackage", module, torch.rand(1, channels, 5, 7),
        [ct.ImageType(IN, (1, channels, 5, 7), scale, bias if channels == 3 else bias[0], color_layout=layout)],
        outputs=[ct.ImageType(OUT, color_layout=layout)],
    )  # fmt: skip
    model = coreml.load(path)
    shape = (5, 7, 3) if channels == 3 else (5, 7)
    dtype = "float16" if color == "GRAYSCALE_FLOAT16" else "uint8"
    for feature in (model.inputs[IN], model.outputs[OUT]):
        assert (feature.kind, feature.shape, feature.dtype, feature.color) == ("image", shape, dtype, color)

    picture = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    tensor = np.moveaxis(picture.reshape(5, 7, channels), -1, 0)[None].astype(np.float32)
    tensor = tensor[:, ::-1].copy() if color == "BGR" else tensor
    wanted = by_torch(module, tensor * np.float32(scale) + np.float32(bias).reshape(1, -1, 1, 1))
    wanted = np.moveaxis((wanted[:, ::-1] if color == "BGR" else wanted)[0], 0, -1).reshape(shape)
    pillow = image_module.fromarray(picture.astype(np.float32) if dtype == "float16" else picture)
    for given in (pillow, picture, picture.astype(np.int64), tensor):
        found = model.predict({IN: given})[OUT]
        assert isinstance(found, image_module.Image)
        assert found.mode == {3: "RGBA", 1: "F" if dtype == "float16" else "L"}[channels]
        pixels = np.asarray(found)
        alpha, pixels = (pixels[..., 3], pixels[..., :3]) if channels == 3 else (np.uint8([255]), pixels)
        if dtype == "float16":
            np.testing.assert_allclose(pixels, wanted, rtol=2**-11, atol=1e-3)
            continue
        assert np.abs(pixels - np.clip(wanted, 0, 255)).max() <= 0.5 + 1e-3
        assert wanted.min() < 0 or wanted.max() > 255 or channels == 1, "some values are limited"
        assert (alpha == 255).all()

    monkeypatch.setitem(sys.modules, "PIL", None)
    plain = model.predict({IN: picture})[OUT]
    assert isinstance(plain, np.ndarray)
    np.testing.assert_array_equal(plain, pixels)


def test_pictures_that_an_image_input_refuses(tmp_path: Path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    module = Mix(3)
    path = convert(
        tmp_path / "m.mlpackage", module, torch.rand(1, 3, 4, 6),
        [ct.ImageType(IN, ct.EnumeratedShapes([(1, 3, 4, 6), (1, 3, 8, 8)]))],
    )  # fmt: skip
    model = coreml.load(path)
    assert model.inputs[IN].shapes == ((4, 6, 3), (8, 8, 3))
    for height, width in ((4, 6), (8, 8)):
        tensor = np.random.default_rng(0).integers(0, 256, (1, 3, height, width)).astype(np.float32)
        alpha = np.concatenate([np.moveaxis(tensor[0], 0, -1), np.full((height, width, 1), 9)], axis=-1).astype("u1")
        for given in (tensor, alpha, image_module.fromarray(alpha)):
            np.testing.assert_allclose(model.predict({IN: given})[OUT], by_torch(module, tensor), rtol=1e-5, atol=1e-4)
    with pytest.raises(UsageError, match=r"size of image x.*\[4, 6, 3\] or \[8, 8, 3\] \(height, width, 3\).*resize"):
        model.predict({IN: np.zeros((6, 4, 3), np.uint8)})
    with pytest.raises(UsageError, match="size of image x"):
        model.predict({IN: np.zeros((1, 1, 4, 6), np.uint8)})
    with pytest.raises(UsageError, match=r'mode of image x; got: L.*convert\("RGB"\)'):
        model.predict({IN: image_module.new("L", (6, 4))})
    for wrong in (0.25, 256, -1.0, np.nan):
        with pytest.raises(UsageError, match=r"pixels of image x.*whole numbers, 0 to 255.*scales"):
            model.predict({IN: np.full((4, 6, 3), wrong)})
    with pytest.raises(UsageError, match="image x"):
        model.predict({IN: "cat.png"})


def test_an_image_of_a_range_of_sizes(tmp_path: Path) -> None:
    module = Mix(1)
    sizes = (1, 1, ct.RangeDim(4, 9), ct.RangeDim(5, 8))
    path = convert(
        tmp_path / "m.mlpackage", module, torch.rand(1, 1, 4, 5),
        [ct.ImageType(IN, sizes, color_layout=ct.colorlayout.GRAYSCALE)],
        outputs=[ct.ImageType(OUT, color_layout=ct.colorlayout.GRAYSCALE)],
    )  # fmt: skip
    model = coreml.load(path)
    assert model.inputs[IN].allowed() == "[4..9, 5..8]"
    assert model.outputs[OUT].allowed() == "[1..., 1...]"
    picture = np.arange(72, dtype=np.uint8).reshape(9, 8)
    wanted = by_torch(module, picture[None, None].astype(np.float32))[0, 0]
    assert np.abs(np.asarray(model.predict({IN: picture})[OUT]) - np.clip(wanted, 0, 255)).max() <= 0.5 + 1e-3
    with pytest.raises(UsageError, match=r"\[4\.\.9, 5\.\.8\]"):
        model.predict({IN: np.zeros((10, 8), np.uint8)})


# ---- arrays ----------------------------------------------------------------------------------------------------------


class Sum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * x).sum(-1) + x[..., 0]


def test_ranged_and_enumerated_shapes(tmp_path: Path) -> None:
    module = Sum()
    ranged = [ct.TensorType(IN, (1, ct.RangeDim(2, 6, default=3), 4))]
    path = convert(tmp_path / "r.mlpackage", module, torch.rand(1, 3, 4), ranged)
    model = coreml.load(path)
    assert (model.inputs[IN].shape, model.inputs[IN].ranges) == ((1, 3, 4), ((1, 1), (2, 6), (4, 4)))
    assert model.outputs[OUT].shape == (1, "?")
    for length in (2, 6):
        x = normal((1, length, 4))
        np.testing.assert_allclose(model.predict({IN: x})[OUT], by_torch(module, x), rtol=1e-5)
    for shape in ((1, 7, 4), (1, 1, 4), (1, 3), (1, 3, 5)):
        with pytest.raises(UsageError, match=r"shape of input x.*\[1, 2\.\.6, 4\]"):
            model.predict({IN: np.zeros(shape)})

    def unbound(m: Any) -> None:
        m.description.input[0].type.arrayType.shapeRange.sizeRanges[1].upperBound = -1

    model = coreml.load(edit(path, unbound))
    assert model.inputs[IN].allowed() == "[1, 2..., 4]"
    x = normal((1, 300, 4))
    np.testing.assert_allclose(model.predict({IN: x})[OUT], by_torch(module, x), rtol=1e-4, atol=1e-5)

    enumerated = [ct.TensorType(IN, ct.EnumeratedShapes([(1, 3, 4), (2, 5, 4)], default=(2, 5, 4)))]
    model = coreml.load(convert(tmp_path / "e.mlpackage", module, torch.rand(2, 5, 4), enumerated))
    assert (model.inputs[IN].shape, model.inputs[IN].shapes) == ((2, 5, 4), ((2, 5, 4), (1, 3, 4)))
    x = normal((1, 3, 4))
    np.testing.assert_allclose(model.predict({IN: x})[OUT], by_torch(module, x), rtol=1e-5)
    with pytest.raises(UsageError, match=r"\[2, 5, 4\] or \[1, 3, 4\]"):
        model.predict({IN: np.zeros((2, 3, 4))})


class Affine(nn.Module):
    def forward(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return x * scale + 1


def test_optional_inputs(tmp_path: Path) -> None:
    default = np.full((1, 4), 2.5, np.float32)
    inputs = [ct.TensorType(IN, (1, 4)), ct.TensorType("scale", (1, 4), default_value=default)]
    path = convert(tmp_path / "m.mlpackage", Affine(), (torch.rand(1, 4), torch.rand(1, 4)), inputs)
    model = coreml.load(path)
    assert (model.inputs["scale"].optional, model.inputs["scale"].default) == (True, 2.5)
    x, scale = normal((1, 4)), normal((1, 4), seed=1)
    np.testing.assert_allclose(model.predict({IN: x})[OUT], by_torch(Affine(), x, default), rtol=1e-6)
    np.testing.assert_allclose(model.predict({IN: x, "scale": scale})[OUT], by_torch(Affine(), x, scale), rtol=1e-6)
    with pytest.raises(UsageError, match=r"got: \['scale'\]; wanted: \['x', 'scale \(optional\)'\]"):
        model.predict({"scale": scale})

    def no_default(m: Any) -> None:
        m.description.input[1].type.arrayType.ClearField("floatDefault")

    np.testing.assert_array_equal(coreml.load(edit(path, no_default)).predict({IN: x})[OUT], np.ones((1, 4)))


class Mixed(nn.Module):
    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 3.14159, ids * 2


def test_half_and_integer_features(tmp_path: Path) -> None:
    inputs = [ct.TensorType(IN, (2, 3), dtype=np.float16), ct.TensorType("ids", (3,), dtype=np.int32)]
    outputs = [ct.TensorType(OUT, dtype=np.float16), ct.TensorType("doubled", dtype=np.int32)]
    example = (torch.rand(2, 3), torch.ones(3, dtype=torch.int32))
    model = coreml.load(convert(tmp_path / "m.mlpackage", Mixed(), example, inputs, outputs=outputs))
    assert [f.dtype for f in (*model.inputs.values(), *model.outputs.values())] == [
        "float16", "int32", "float16", "int32",
    ]  # fmt: skip
    x = normal((2, 3)).astype(np.float16)
    for given in ([1, 2, 2**30 - 1], np.array([1.0, 2.0, 2**30 - 1]), torch.tensor([1, 2, 2**30 - 1])):
        found = model.predict({IN: torch.tensor(x, requires_grad=True), "ids": given})
        assert (found[OUT].dtype, found["doubled"].dtype) == (np.float16, np.int32)
        np.testing.assert_allclose(found[OUT], x.astype(np.float32) * 3.14159, rtol=2**-10)
        np.testing.assert_array_equal(found["doubled"], [2, 4, 2**31 - 2])
    for ids, message in (
        ([1.5, 2, 3], "fractions"),
        ([1, 2, 2**31], "1 to 2147483648.*int32"),
        ([1, np.nan, 2], "nan"),
        (["1", "2", "3"], "type of input ids|values"),
        ([1, 2], r"shape of input ids; got: \[2\]; wanted: \[3\]"),
        ([[1], [2, 3]], "input ids"),
        ([1j, 2, 3], "real numbers"),
    ):
        with pytest.raises(UsageError, match=message):
            model.predict({IN: x, "ids": ids})


def scalar_within(model: Any) -> None:
    """Takes the axis from the program's tensors; [1] stays described, as coremltools describes such an input."""
    function = model.mlProgram.functions["main"]
    block = function.blockSpecializations[function.opset]
    for named in (*function.inputs, *(o for op in block.operations if op.type == "add" for o in op.outputs)):
        named.type.tensorType.rank = 0
        del named.type.tensorType.dimensions[:]


def test_scalars_and_a_list_of_inputs(tmp_path: Path) -> None:
    path = save(tmp_path, lambda x: mb.add(x=x, y=np.float32(1), name=OUT), {IN: ((1,), "float32")})
    model = coreml.load(edit(path, scalar_within))
    assert model.inputs[IN].shape == (1,)
    for given in (2.5, [2.5], np.float64(2.5)):
        assert float(model.predict({IN: given})[OUT]) == 3.5
    batch = model.predict([{IN: 1}, {IN: 2}, {IN: 3}])
    assert [float(b[OUT]) for b in batch] == [2, 3, 4]
    assert model.predict([]) == []
    for wrong in ("x", 7, [1, 2]):
        with pytest.raises(UsageError, match="a dict, or a list of dicts"):
            model.predict(wrong)
    with pytest.raises(UsageError, match="call predict for each dict"):
        model.predict([{IN: 1}], state=model.make_state())
    with pytest.raises(UsageError, match=r"got: \['X'\]; wanted: \['x'\]"):
        model.predict({"X": 1})
    with pytest.raises(UsageError, match=r"function of the model; got: other; wanted: \['main'\]"):
        model.predict({IN: 1}, function="other")
    with pytest.raises(UsageError, match="precision"):
        model.predict({IN: 1}, precision="fp8")


def test_a_seed_makes_random_ops_repeat(tmp_path: Path) -> None:
    def noisy(x: Any) -> Any:
        return mb.add(x=x, y=mb.random_normal(shape=np.array([500], np.int32), mean=3.0, stddev=2.0), name=OUT)

    model = coreml.load(save(tmp_path, noisy, {IN: ((1,), "float32")}))
    first, again, other = (model.predict({IN: 0}, seed=seed)[OUT] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert abs(first.mean() - 3) < 0.5 and abs(first.std() - 2) < 0.3


def test_a_default_that_would_fill_memory(tmp_path: Path) -> None:
    path = save(tmp_path, lambda x: mb.relu(x=x, name=OUT), {IN: ((2,), "float32")})

    def bomb(model: Any) -> None:
        model.description.input[0].type.isOptional = True
        model.description.input[0].type.arrayType.shape[:] = [MAX_DIMENSION] * 3

    with pytest.raises(FormatError, match="default of input x"):
        coreml.load(edit(path, bomb)).predict({})


# ---- labels, states, functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [["cat", "dog", "emu"], [7, 8, 2**40]])
def test_a_classifier(tmp_path: Path, labels: list[Any]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
    config = ct.ClassifierConfig(labels, predicted_feature_name="animal")
    model = coreml.load(convert(tmp_path / "m.mlpackage", module, torch.rand(1, 4), classifier_config=config))
    signature = model.signature()
    assert (signature.predicted_feature, signature.predicted_probabilities) == ("animal", "animal_probs")
    text = isinstance(labels[0], str)
    assert [(f.kind, f.dtype) for f in model.outputs.values()] == [
        ("string" if text else "int64", "str" if text else "int64"), ("dictionary", "str" if text else "int64"),
    ]  # fmt: skip
    for seed in range(4):
        x = normal((1, 4), seed)
        wanted = by_torch(module, x)[0]
        found = model.predict({IN: x})
        assert type(found["animal"]) is type(labels[0])
        assert found["animal"] == labels[int(wanted.argmax())]
        assert list(found["animal_probs"]) == labels
        assert all(type(p) is float for p in found["animal_probs"].values())
        np.testing.assert_allclose(list(found["animal_probs"].values()), wanted, rtol=1e-5)


class Accumulator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(1, 4, dtype=torch.float16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x)
        return self.total * 2


def test_states(tmp_path: Path) -> None:
    state_type = ct.StateType(ct.TensorType(shape=(1, 4), dtype=np.float16), name="total")
    path = convert(
        tmp_path / "m.mlpackage", Accumulator(), torch.zeros(1, 4, dtype=torch.float16),
        [ct.TensorType(IN, (1, 4), dtype=np.float16)], outputs=[ct.TensorType(OUT, dtype=np.float16)],
        states=[state_type], minimum_deployment_target=ct.target.iOS18, compute_precision=ct.precision.FLOAT16,
    )  # fmt: skip
    model = coreml.load(path)
    total = model.states["total"]
    assert (total.kind, total.shape, total.dtype) == ("state", (1, 4), "float16")
    one, other = model.make_state(), model.make_state()
    sums = np.zeros((1, 4), np.float32)
    for seed in range(3):
        x = normal((1, 4), seed).astype(np.float16)
        sums += x
        np.testing.assert_allclose(model.predict({IN: x}, one)[OUT], sums * 2, rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(one.read_state("total"), sums, rtol=2e-3, atol=1e-3)
    assert one.read_state("total").dtype == np.float16
    np.testing.assert_array_equal(other.read_state("total"), np.zeros((1, 4)))
    other.write_state("total", [[1, 2, 3, 4]])
    found = model.predict({IN: np.ones((1, 4))}, other, precision="fp16")[OUT]
    np.testing.assert_array_equal(found, [[4, 6, 8, 10]])
    with pytest.raises(UsageError, match=r"states \['total'\].*make_state"):
        model.predict({IN: np.zeros((1, 4))})
    with pytest.raises(UsageError, match=r"name of a state; got: x; wanted: \['total'\]"):
        one.read_state("x")
    with pytest.raises(UsageError, match="shape of state total"):
        one.write_state("total", np.zeros(4))


def test_functions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Linear(4, 2)
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, rows in (("one", 1), ("many", 5)):
        options = {"minimum_deployment_target": ct.target.iOS18}
        path = convert(tmp_path / f"{name}.mlpackage", module, torch.rand(rows, 4), **options)
        descriptor.add_function(str(path), "main", name)
    descriptor.default_function_name = "many"
    ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    model = coreml.load(tmp_path / "both.mlpackage")
    assert model.functions == ("many", "one")
    assert model.inputs[IN].shape == (5, 4)
    assert model.signature("one").inputs[IN].shape == (1, 4)
    for name, rows in ((None, 5), ("many", 5), ("one", 1)):
        x = normal((rows, 4))
        np.testing.assert_allclose(model.predict({IN: x}, function=name)[OUT], by_torch(module, x), rtol=1e-5)
    with pytest.raises(UsageError, match=r"wanted: \[1, 4\]"):
        model.predict({IN: normal((5, 4))}, function="one")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_bare_model_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Linear(8, 8)
    path = convert(tmp_path / "m.mlpackage", module, torch.rand(1, 8))
    spec = ct.utils.load_spec(str(path))
    spec.description.metadata.author = "someone"
    bare = tmp_path / "bare" / "m.mlmodel"
    bare.parent.mkdir()
    ct.utils.save_spec(spec, str(bare))
    with pytest.raises(FormatError, match=r"weight file weight\.bin"):
        coreml.load(bare).predict({IN: normal((1, 8))})
    shutil.copytree(path / "Data/com.apple.CoreML/weights", bare.parent / "weights")
    model = coreml.load(bare)
    assert (model.metadata["author"], model.specification_version) == ("someone", 7)
    x = normal((1, 8))
    np.testing.assert_allclose(model.predict({IN: x})[OUT], by_torch(module, x), rtol=1e-5, atol=1e-6)


def old_network(folder: Path) -> Path:
    builder = NeuralNetworkBuilder([(IN, Array(4))], [(OUT, Array(4))])
    builder.add_activation("relu", "RELU", IN, OUT)
    ct.utils.save_spec(builder.spec, str(folder / "old.mlmodel"))
    return folder / "old.mlmodel"


def pipeline(folder: Path) -> Path:
    part = ct.models.MLModel(str(old_network(folder)), skip_model_load=True)
    made = ct.models.pipeline.Pipeline([(IN, Array(4))], [(OUT, Array(4))])
    made.add_model(part)
    ct.utils.save_spec(made.spec, str(folder / "pipeline.mlmodel"))
    return folder / "pipeline.mlmodel"


def trees(folder: Path) -> Path:
    builder = ct.models.tree_ensemble.TreeEnsembleRegressor([(IN, Array(2))], OUT)
    builder.set_default_prediction_value(0.0)
    builder.add_branch_node(0, 0, 0, 0.5, "BranchOnValueGreaterThan", 1, 2)
    builder.add_leaf_node(0, 1, 1.0)
    builder.add_leaf_node(0, 2, 2.0)
    ct.utils.save_spec(builder.spec, str(folder / "trees.mlmodel"))
    return folder / "trees.mlmodel"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (old_network, "neuralNetwork: a network in the old NeuralNetwork format.*convert the original model again"),
        (pipeline, "pipeline: a pipeline of models.*take the pipeline apart"),
        (trees, "treeEnsembleRegressor: a regressor of decision trees.*scikit-learn"),
    ],
)
def test_older_kinds_are_named(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(FormatError, match=f"type of the Core ML model; got: {message}"):
        coreml.load(make(tmp_path))


def test_every_kind_of_the_format_has_words(tmp_path: Path) -> None:
    kinds = ct.proto.Model_pb2.Model.DESCRIPTOR.oneofs_by_name["Type"].fields
    assert {f.name for f in kinds} - {"mlProgram"} == set(KINDS)
    for kind in KINDS:
        theirs = ct.proto.Model_pb2.Model(specificationVersion=4)
        getattr(theirs, kind).SetInParent()
        (tmp_path / "m.mlmodel").write_bytes(theirs.SerializeToString())
        with pytest.raises(FormatError, match=f"{kind}: {KINDS[kind][0]}"):
            coreml.load(tmp_path / "m.mlmodel")


def test_things_that_are_no_packages(tmp_path: Path) -> None:
    compiled = tmp_path / "m.mlmodelc"
    compiled.mkdir()
    (compiled / "model.mil").write_text("program(1.0)")
    with pytest.raises(FormatError, match=r"compiled model m\.mlmodelc.*compiled from"):
        coreml.load(compiled)
    (tmp_path / "m.mlpackage.zip").write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(FormatError, match=r"zip archive.*unpack"):
        coreml.load(tmp_path / "m.mlpackage.zip")


def no_such_input(d: Any) -> None:
    d.input[0].name = "elsewhere"


def no_such_output(d: Any) -> None:
    d.output[0].name = "elsewhere"


def unknown_type(d: Any) -> None:
    d.input[0].type.arrayType.dataType = 3


def no_type(d: Any) -> None:
    d.input[0].type.ClearField("arrayType")


def unknown_color(d: Any) -> None:
    d.input[0].type.imageType.width = 3


def beyond_memory(d: Any) -> None:
    d.input[0].type.arrayType.shape[0] = MAX_DIMENSION + 1


def backward_range(d: Any) -> None:
    d.input[0].type.arrayType.shapeRange.sizeRanges.add(lowerBound=5, upperBound=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_such_input, r"\['elsewhere'\] described; wanted: \['x'\]"),
        (no_such_output, r"\['elsewhere'\] described; wanted: \['y'\]"),
        (unknown_type, "element type of feature x; got: 3"),
        (no_type, "type of feature x"),
        (unknown_color, "color space of image x; got: 0"),
        (beyond_memory, "shape of feature x"),
        (backward_range, r"range of sizes of feature x; got: 5\.\.4"),
    ],
)
def test_malformed_descriptions_are_named(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    path = save(tmp_path, lambda x: mb.relu(x=x, name=OUT), {IN: ((2,), "float32")})
    with pytest.raises(FormatError, match=message):
        coreml.load(edit(path, lambda m: change(m.description)))


def test_a_program_without_a_description_runs(tmp_path: Path) -> None:
    path = save(tmp_path, lambda x: mb.relu(x=x, name=OUT), {IN: ((2,), "float32")})
    model = coreml.load(edit(path, lambda m: m.ClearField("description")))
    assert (model.inputs[IN].shape, model.outputs[OUT].dtype) == ((2,), "float32")
    np.testing.assert_array_equal(model.predict({IN: [-1, 2]})[OUT], [0, 2])


def test_the_module_is_light() -> None:
    heavy = "('torch', 'coremltools', 'scipy', 'onnxruntime', 'PIL', 'transformers')"
    code = f"import sys, satchel.coreml; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
