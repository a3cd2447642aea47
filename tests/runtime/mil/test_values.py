"""Values of every type: strings, dictionaries, lists, narrow and wide numbers; opsets; random numbers and seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from mil_programs import mb, normal, outputs, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.dtypes import BY_NAME, widen
from satchel.runtime.mil.values import immediate, spec


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e5m2", "bfloat16"])
def test_narrow_floats_widen_exactly(name: str) -> None:
    bits = np.arange(1 << BY_NAME[name].bits).astype(BY_NAME[name].storage)
    want = torch.from_numpy(bits).view(getattr(torch, name)).to(torch.float32)
    np.testing.assert_array_equal(widen(bits, BY_NAME[name]), want.numpy())


def tensor(kind: str, field: str, values: Any, shape: tuple[int, ...] = ()) -> Any:
    """The proto of an immediate tensor."""
    value = pb.Value()
    value.type.tensorType.dataType = BY_NAME[kind].proto
    for size in shape:
        value.type.tensorType.dimensions.add().constant.size = size
    content = getattr(value.immediateValue.tensor, field)
    if field == "bytes":
        content.values = values
    else:
        content.values.extend(values)
    return value


def test_immediate_constants_of_every_kind() -> None:
    assert immediate(tensor("str", "strings", ["one"])) == "one"
    assert immediate(tensor("str", "strings", ["a", "b"], (2,))).tolist() == ["a", "b"]
    big = immediate(tensor("int64", "longInts", [1 << 40, -1], (2,)))
    assert (big.dtype, big.tolist()) == (np.int64, [1 << 40, -1])
    fine = immediate(tensor("float64", "doubles", [1 + 1e-12]))
    assert (fine.dtype, fine.item()) == (np.float64, 1 + 1e-12)
    assert widen(fine, BY_NAME["float64"]).item() == 1 + 1e-12
    truths = immediate(tensor("bool", "bools", [True, False], (2, 1)))
    assert (truths.dtype, truths.tolist()) == (np.bool_, [[True], [False]])
    halves = np.array([1.5, -2], np.float16)
    np.testing.assert_array_equal(immediate(tensor("float16", "bytes", halves.tobytes(), (2,))), halves)
    table = pb.Value()
    for key, number in (("x", 1.0), ("y", 2.0)):
        pair = table.immediateValue.dictionary.values.add()
        pair.key.CopyFrom(tensor("str", "strings", [key]))
        pair.value.CopyFrom(tensor("float32", "floats", [number]))
    assert immediate(table) == {"x": 1, "y": 2}
    with pytest.raises(FormatError, match="3 elements"):
        immediate(tensor("int32", "ints", [1, 2, 3], (2,)))


def test_values_that_are_no_tensors_have_their_kind_as_type() -> None:
    named = pb.NamedValueType(name="v")
    named.type.listType.length.unknown.variadic = False
    assert (spec(named).shape, spec(named).dtype) == (("?",), "list")
    named.type.dictionaryType.SetInParent()
    assert (spec(named).shape, spec(named).dtype) == ((), "dictionary")


@pytest.mark.parametrize("labels", [["cat", "dog", "hen"], [7, -1, 1 << 40]])
def test_a_classifier_gives_a_label_and_a_dictionary(tmp_path: Path, labels: list[Any]) -> None:
    @mb.program(input_specs=[mb.TensorSpec((1, 3))])  # type: ignore[untyped-decorator]
    def program(x: mb.Var) -> Any:
        return mb.softmax(x=x)

    converted = ct.convert(
        program,
        convert_to="mlprogram",
        classifier_config=ct.ClassifierConfig(labels),
        compute_precision=ct.precision.FLOAT32,
        skip_model_load=True,
    )
    converted.save(str(tmp_path / "model.mlpackage"))
    found = mil.load(tmp_path / "model.mlpackage")
    assert [s.dtype for s in found.outputs] == ["str" if isinstance(labels[0], str) else "int64", "dictionary"]
    label, chances = found.run({"x": [[1, 3, 2]]}).values()
    assert label == labels[1]
    want = torch.softmax(torch.tensor([1.0, 3, 2]), 0).tolist()
    assert chances == pytest.approx(dict(zip(labels, want, strict=True)), rel=1e-6)


def test_whole_numbers_keep_their_type() -> None:
    x = np.array([-3, 100, 127], np.int32)
    types = ["int8", "uint8", "int16", "uint16"]
    found = outputs(lambda x: [mb.cast(x=mb.cast(x=x, dtype=t), dtype="int32") for t in types], {"x": x})
    for name, value in zip(types, found, strict=True):
        np.testing.assert_array_equal(value, x.astype(name).astype(np.int32))


# ---- opsets --------------------------------------------------------------------------------------------------------


def opset(path: Path, wanted: str) -> Path:
    """Says in a package that its program is written for another opset."""
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = pb.Model.FromString(file.read_bytes())
    for function in model.mlProgram.functions.values():
        block = function.blockSpecializations.pop(function.opset)
        function.blockSpecializations[wanted].CopyFrom(block)
        function.opset = wanted
    file.write_bytes(model.SerializeToString())
    return path


def test_zeros_of_a_shape_in_each_opset(tmp_path: Path) -> None:
    def build(x: mb.Var) -> Any:
        return mb.reshape(x=x, shape=[1, 0, -1, 0], name="y")

    path = save(tmp_path, build, {"x": ((2, 50), "float32")}, target=ct.target.iOS17)
    x = normal((2, 50))
    for version in ("CoreML7", "CoreML8", "CoreML9"):
        assert mil.load(opset(path, version)).run({"x": x})["y"].shape == (1, 1, 2, 50)
    for version in ("CoreML5", "CoreML6"):
        with pytest.raises(FormatError, match=r"reshape 'y' in main.*before iOS 17"):
            mil.load(opset(path, version)).run({"x": x})
    with pytest.raises(FormatError, match="opset of function main"):
        mil.load(opset(path, "CoreML99")).run({"x": x})
    kept = save(tmp_path, lambda x: mb.reshape(x=x, shape=[0, -1], name="y"), {"x": ((2, 50), "float32")}, name="kept")
    assert mil.load(opset(kept, "CoreML5")).run({"x": x})["y"].shape == (2, 50)


def test_clip_in_each_opset(tmp_path: Path) -> None:
    def build(x: mb.Var) -> Any:
        return mb.clip(x=x, alpha=1.0, beta=1.0, name="y")

    path = save(tmp_path, build, {"x": ((3,), "float32")}, target=ct.target.iOS16)
    np.testing.assert_array_equal(mil.load(path).run({"x": normal((3,))})["y"], np.ones(3))
    with pytest.raises(FormatError, match=r"clip 'y' in main.*between 1\.0 and 1\.0"):
        mil.load(opset(path, "CoreML7")).run({"x": normal((3,))})


TARGETS = [ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18]
REDEFINED: dict[str, Callable[[mb.Var], Any]] = {
    "negative index": lambda x: mb.gather(x=x, indices=np.array([-1, 0], np.int32), axis=-1),
    "gather_nd": lambda x: mb.gather_nd(x=x, indices=np.array([[1, 2], [0, 0]], np.int32)),
    "scatter": lambda x: mb.scatter(data=x, indices=np.array([1], np.int32), updates=np.ones((1, 4), np.float32)),
    "topk": lambda x: mb.topk(x=x, k=2, axis=0)[0],
    "argmax": lambda x: mb.reduce_argmax(x=x, axis=1),
    "elu": lambda x: mb.elu(x=x, alpha=0.5),
    "rsqrt": lambda x: mb.rsqrt(x=mb.abs(x=x), epsilon=0.25),
    "squeeze": lambda x: mb.squeeze(x=mb.expand_dims(x=x, axes=[0, -1]), axes=[0]),
}


@pytest.mark.parametrize("name", REDEFINED)
def test_redefined_ops_give_the_same_in_every_opset(name: str) -> None:
    x = normal((3, 4))
    first, *others = [outputs(REDEFINED[name], {"x": x}, target) for target in TARGETS]
    for other in others:
        np.testing.assert_array_equal(other[0], first[0])
    if name == "negative index":
        np.testing.assert_array_equal(first[0], x[:, [-1, 0]])


# ---- random numbers ------------------------------------------------------------------------------------------------


def test_seeds(tmp_path: Path) -> None:
    """A run's seed makes it repeat; an op's own seed repeats without; ops do not draw the same numbers."""

    def build(x: mb.Var) -> Any:
        numbers = mb.random_normal(shape=[64], mean=1.0, stddev=2.0)
        own = mb.random_uniform(shape=[64], low=0.0, high=1.0, seed=7)
        return [mb.add(x=x, y=numbers), mb.add(x=x, y=mb.random_normal(shape=[64])), mb.add(x=x, y=own)]

    program = mil.load(save(tmp_path, build, {"x": ((1,), "float32")}))
    runs = [list(program.run({"x": [0]}, seed=seed).values()) for seed in (0, 0, 1, None, None)]
    for a, b in ((0, 1),):
        np.testing.assert_array_equal(runs[a], runs[b])
    for a, b in ((0, 2), (3, 4), (0, 3)):
        assert not np.array_equal(runs[a][0], runs[b][0])
    for other in runs[1:]:
        np.testing.assert_array_equal(other[2], runs[0][2])
    assert not np.array_equal((runs[0][0] - 1) / 2, runs[0][1])


def test_random_numbers_in_a_loop_differ_by_round() -> None:
    def build(x: mb.Var) -> Any:
        def body(i: Any, ls: Any) -> list[Any]:
            return [mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=mb.random_normal(shape=[4]))]

        zero = mb.cast(x=mb.mul(x=mb.squeeze(x=x), y=0.0), dtype="int32")
        empty = mb.make_list(init_length=0, elem_shape=(4,))
        ls = mb.while_loop(_cond=lambda i, ls: mb.less(x=i, y=3), _body=body, loop_vars=(zero, empty))[1]
        return mb.list_gather(ls=ls, indices=[0, 1, 2])

    (found,) = outputs(build, {"x": np.zeros(1, np.float32)})
    assert len(np.unique(found)) == 12
