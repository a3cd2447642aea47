"""Programs that ask for more than they could need are refused by name, before the memory is asked for."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from growing_programs import PROGRAMS
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.growth import BROADCASTING, CONSTANT_SIZES, SIZES
from satchel.runtime.mil.limits import LEAST, ROUNDS, Limit
from satchel.runtime.mil.ops import OPS

MODEL = "Data/com.apple.CoreML/model.mlmodel"
BIG = 2**31 - 1
SQUARE = {"x": ((2, 3), "float32")}


@pytest.fixture(autouse=True)
def _quick_and_small() -> Iterator[None]:
    """Whatever a test does takes two seconds and a gigabyte at most."""
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - start < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # in KiB


def built(folder: Path, name: str) -> Path:
    """One of the growing programs."""
    build, inputs, target = PROGRAMS[name]
    return save(folder, build, inputs, {"s": ((2, 3), "float16")} if name == "state" else None, target)


def edited(package: Path, change: Callable[[Any], None]) -> Path:
    """A package with its default function's body changed."""
    model = pb.Model.FromString((package / MODEL).read_bytes())
    function = next(iter(model.mlProgram.functions.values()))
    change(function.blockSpecializations[function.opset])
    (package / MODEL).write_bytes(model.SerializeToString())
    return package


def constant(block: Any, op_type: str, argument: str) -> Any:
    """The tensor of the constant that is an argument of the first op of a type."""
    op = next(o for o in block.operations if o.type == op_type)
    name = op.inputs[argument].arguments[0].name
    found = next(o for o in block.operations if o.outputs[0].name == name)
    return found.attributes["val"].immediateValue.tensor


@pytest.mark.parametrize(
    ("program", "op", "argument", "values"),
    [
        ("filled by a constant", "fill", "shape", [2**20, 2**20]),
        ("filled by a constant", "fill", "shape", [2**15, 2**14]),
        ("tiled", "tile", "reps", [1, BIG, BIG, 1]),
        ("padded", "pad", "pad", [0, BIG, 0, BIG]),
        ("conv", "conv", "pad", [BIG, 0, 0, 0]),
        ("conv same", "conv", "dilations", [BIG, BIG]),
        ("pooled", "avg_pool", "kernel_sizes", [BIG, BIG]),
        ("conv_transpose", "conv_transpose", "strides", [BIG, BIG]),
        ("random", "random_uniform", "shape", [BIG, 7]),
        ("resize", "resize", "shape", [BIG, 3]),
        ("resized", "resize_bilinear", "target_size_height", [BIG]),
        ("crop_resize", "crop_resize", "target_width", [BIG]),
        ("affine", "affine", "output_height", [BIG]),
        ("upsampled", "upsample_nearest_neighbor", "scale_factor_width", [1e15]),
        ("looked up", "one_hot", "one_hot_vector_size", [BIG]),
        ("boxes", "non_maximum_suppression", "max_boxes", [BIG]),
    ],
)
def test_a_constant_that_asks_for_too_much(
    tmp_path: Path, program: str, op: str, argument: str, values: list[float]
) -> None:
    def change(block: Any) -> None:
        tensor = constant(block, op, argument)
        field = getattr(tensor, tensor.WhichOneof("value"))
        del field.values[:]
        field.values.extend(values)

    loaded = mil.load(edited(built(tmp_path, program), change))
    inputs = {s.name: np.ones([int(d) for d in s.shape], s.dtype) for s in loaded.inputs}
    with pytest.raises(FormatError, match=rf"{op} .*a value of .* bytes; wanted: at most .*max_memory"):
        loaded.run(inputs)


@pytest.mark.parametrize(
    ("program", "number", "message"),
    [
        ("filled", 2**13, "fill .*a value of"),
        ("counted", BIG, "range_1d .*a value of"),
        ("listed", BIG, "list_write"),
        ("looped", BIG, "rounds of all loops; got: 10001; wanted: at most 10000"),
    ],
)
def test_an_input_that_asks_for_too_much(tmp_path: Path, program: str, number: int, message: str) -> None:
    loaded = mil.load(built(tmp_path, program))
    with pytest.raises(FormatError, match=message):
        loaded.run({"n": np.array([number])})
    small = loaded.run({"n": np.array([3])})  # refused or not, the program can be used further
    assert all(np.isfinite(v).all() for v in small.values())


def test_a_range_that_is_empty_by_more_than_int32_can_tell(tmp_path: Path) -> None:
    path = save(tmp_path, lambda n: mb.range_1d(start=1, end=mb.squeeze(x=n), step=1, name="y"), {"n": ((1,), "int32")})
    assert mil.load(path).run({"n": np.array([-(2**31)])})["y"].shape == (0,)


def test_arrays_that_multiply(tmp_path: Path) -> None:
    count = 2**15
    column, row = {"x": ((count, 1), "float32")}, {"y": ((1, count), "float32")}
    arrays = {"x": np.ones((count, 1)), "y": np.ones((1, count))}
    cases: dict[str, Any] = {
        "add": lambda x, y: mb.reduce_sum(x=mb.add(x=x, y=y)),
        "matmul": lambda x, y: mb.reduce_sum(x=mb.matmul(x=x, y=y)),
        "select": lambda x, y: mb.reduce_sum(x=mb.select(cond=mb.greater(x=x, y=0.0), a=y, b=x)),
        "einsum": lambda x, y: mb.einsum(
            values=(mb.reshape(x=x, shape=[1, -1, 1, 1]), mb.reshape(x=y, shape=[1, 1, 1, -1])),
            equation="nchw,nwhu->nchu",
        ),
        "linear": lambda x, y: mb.reduce_sum(x=mb.linear(x=x, weight=normal((count, 1)))),
    }
    for op, build in cases.items():
        path = edited(save(tmp_path, build, column | row, name=op), shrink)
        with pytest.raises(FormatError, match=f"{op} .*a value of"):
            mil.load(path).run(arrays)


def shrink(block: Any) -> None:
    """Makes the declared shapes harmless, so that only the op itself can tell."""
    for op in block.operations:
        if op.type != "const":
            for output in op.outputs:
                for dimension in output.type.tensorType.dimensions:
                    dimension.constant.size = 1


def declare(size: int) -> Callable[[Any], None]:
    """Makes the first result that the block declares an array of so many columns."""

    def change(block: Any) -> None:
        result = next(o for o in block.operations if o.type == "relu").outputs[0]
        result.type.tensorType.dimensions[1].constant.size = size

    return change


@pytest.mark.parametrize("size", [2**27, 2**40, 2**63])
def test_declared_shapes(tmp_path: Path, size: int) -> None:
    path = edited(save(tmp_path, lambda x: mb.add(x=mb.relu(x=x), y=1.0), SQUARE), declare(size))
    with pytest.raises(FormatError, match=r"relu .*a value of"):
        mil.load(path).run({"x": normal((2, 3))})


def test_states_and_compressed_constants(tmp_path: Path) -> None:
    path = built(tmp_path, "state")
    model = pb.Model.FromString((path / MODEL).read_bytes())
    for named in model.mlProgram.functions["main"].inputs:
        if named.name == "s":
            named.type.stateType.wrappedType.tensorType.dimensions[0].constant.size = 2**40
    (path / MODEL).write_bytes(model.SerializeToString())
    with pytest.raises(FormatError, match=r"state s.*a value of"):
        mil.load(path).make_state()

    lut = normal((1, 1, 256, 64)).astype(np.float16)
    indices = np.zeros((64, 64), np.uint8)

    def looked_up(x: mb.Var) -> mb.Var:
        return mb.relu(x=mb.constexpr_lut_to_dense(indices=indices, lut=lut, vector_axis=0))

    path = edited(save(tmp_path, looked_up, SQUARE, name="lut"), shrink)
    with pytest.raises(FormatError, match="262144 elements for a constant of 1"):
        mil.load(path).run({"x": normal((2, 3))})


def test_blocks_inside_blocks(tmp_path: Path) -> None:
    def nested(depth: int) -> Callable[..., Any]:
        def build(x: mb.Var) -> mb.Var:
            return mb.cond(
                pred=True if depth == 0 else mb.greater(x=mb.reduce_sum(x=x), y=0.0),
                _true_fn=lambda: mb.relu(x=x) if depth == 0 else build_inner(x),
                _false_fn=lambda: mb.identity(x=x),
            )

        def build_inner(x: mb.Var) -> mb.Var:
            return nested(depth - 1)(x)

        return build

    path = save(tmp_path, nested(30), SQUARE)
    np.testing.assert_array_equal(*mil.load(path).run({"x": np.ones((2, 3))}).values(), np.ones((2, 3)))

    def field(message: Any, name: str, content: bytes) -> bytes:
        """A field of a message as it is written."""
        encode = bytearray()
        for number in (message.DESCRIPTOR.fields_by_name[name].number << 3 | 2, len(content)):
            while number > 127:
                encode.append(number & 127 | 128)
                number >>= 7
            encode.append(number)
        return bytes(encode) + content

    inner = b""
    for _ in range(10_000):
        inner = field(pb.Block, "operations", field(pb.Operation, "blocks", inner))
    entry = pb.Function.BlockSpecializationsEntry
    function = field(pb.Function, "blockSpecializations", field(entry, "value", inner))
    program = field(pb.Program, "functions", field(pb.Program.FunctionsEntry, "value", function))
    (path / MODEL).write_bytes(field(pb.Model, "mlProgram", program))
    with pytest.raises(FormatError, match=r"proto in model\.mlmodel"):
        mil.load(path)


def test_what_is_no_plain_file(tmp_path: Path) -> None:
    path = save(tmp_path, lambda x: mb.linear(x=x, weight=normal((64, 3)), name="y"), SQUARE)
    for name, message in (
        ("Data/com.apple.CoreML/weights/weight.bin", "weight file"),
        (MODEL, "Core ML model"),
        ("Manifest.json", "Manifest"),
    ):
        (path / name).unlink()
        os.mkfifo(path / name)
        with pytest.raises(FormatError, match=f"{message}.*plain file"):
            mil.load(path).run({"x": normal((2, 3))})
    (path / "Manifest.json").unlink()
    (path / "Manifest.json").write_text(" " * (2 << 20))
    with pytest.raises(FormatError, match="at most 1048576"):
        mil.load(path)


def test_very_long_names(tmp_path: Path) -> None:
    def rename(block: Any) -> None:
        block.operations[-1].type = "relu" * 10**6

    path = edited(save(tmp_path, lambda x: mb.relu(x=x), SQUARE), rename)
    with pytest.raises(FormatError, match="closest known ops") as caught:
        mil.load(path).run({"x": normal((2, 3))})
    assert len(str(caught.value)) < 20_000


def test_what_is_allowed_follows_what_is_given() -> None:
    limit = Limit()
    assert (limit.nbytes, limit.rounds) == (LEAST, ROUNDS)
    limit.allow(weights=1 << 30, inputs=1 << 20)
    assert (limit.nbytes, limit.rounds) == (4 << 30, 1 << 20)
    limit.allow(wanted=8 << 30)
    limit.check("value", 2 << 30)
    with pytest.raises(FormatError, match="max_memory"):
        limit.check("value", (2 << 30) + 1)


def test_a_user_may_allow_more(tmp_path: Path) -> None:
    path = built(tmp_path, "counted")
    assert mil.load(path, max_memory=1 << 40).limit.nbytes == 1 << 40
    assert mil.load(path, max_memory=1).limit.nbytes == LEAST


def test_every_guarded_op_is_an_op() -> None:
    assert {*BROADCASTING, *SIZES, *CONSTANT_SIZES} <= set(OPS)
