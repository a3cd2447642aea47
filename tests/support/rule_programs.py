"""Small packages that break a rule of devices/rules, or just do not: what the tests of the checks are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.mil.types import type_mapping
from mil_programs import ct, mb, normal, save

from satchel.devices.rulebook import load_rules
from satchel.runtime.coreml.checks import Report, judge, resolve_target
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.package import open_package

Make = Callable[[Path], Path]
RULES = {rule.id: rule for name in ("core-ml", "neural-engine") for rule in load_rules(name)}
MODEL = "Data/com.apple.CoreML/model.mlmodel"
X16 = {"x": ((1, 4, 1, 8), "float16")}
INFINITY = np.float16(-np.inf)


def judged(path: Path, rule: str, target: str | None, settings: dict[str, Any]) -> Report:
    """A package by all rules, some parameters of one rule replaced."""
    rules = RULES | {rule: replace(RULES[rule], parameters={**RULES[rule].parameters, **settings})}
    return judge(open_package(path), resolve_target(target), rules.values())


def program(body: Callable[..., Any], inputs: Any = None, states: Any = None, target: Any = ct.target.iOS18) -> Make:
    return lambda folder: save(folder, body, inputs or X16, states, target)


def edited(make: Make, change: Callable[[Any], None]) -> Make:
    def edit(folder: Path) -> Path:
        path = make(folder)
        model = pb.Model.FromString((path / MODEL).read_bytes())
        change(model)
        (path / MODEL).write_bytes(model.SerializeToString())
        return path

    return edit


def of_shape(*shape: int, dtype: str = "float16") -> Make:
    return program(lambda x: mb.relu(x=x), {"x": (shape, dtype)})


def codes(shape: tuple[int, ...], name: str, most: int) -> np.ndarray:
    plain = np.arange(np.prod(shape)).reshape(shape) % most
    return plain.astype(type_mapping.nptype_from_builtin(type_mapping.string_to_builtin(name)))


def palette(shape: tuple[int, ...] = (8, 4, 1, 1), groups: int = 1, bits: int = 4, vector: int = 1) -> Any:
    """A palettized kernel, with tables for groups of output channels."""
    lut = normal((groups, *([1] * (len(shape) - 1)), 2**bits, vector)).astype(np.float16)
    kwargs = {"vector_axis": np.int32(0)} if vector > 1 else {}
    indices = codes((shape[0] // vector, *shape[1:]), f"uint{bits}", 2**bits)
    return mb.constexpr_lut_to_dense(indices=indices, lut=lut, **kwargs)


def scaled(data: Any, shape: tuple[int, ...]) -> Any:
    return mb.constexpr_blockwise_shift_scale(data=data, scale=np.full(shape, 0.5, np.float16))


def conv(weight: Callable[[], Any], **settings: Any) -> Make:
    return program(lambda x: mb.conv(x=x, weight=weight(), pad_type="same", **settings))


def kernel(width: int) -> Make:
    return conv(lambda: normal((2, 4, 1, width)).astype(np.float16))


def dense(*shape: int) -> np.ndarray:
    return normal(shape).astype(np.float16)


def int8_kernel() -> Any:
    return mb.constexpr_affine_dequantize(
        quantized_data=np.ones((8, 4, 1, 1), np.int8), zero_point=np.int8(0), scale=np.float16(0.1), axis=np.int32(0)
    )


def masked(mask: Any, then: Callable[[Any], Any] = lambda y: mb.softmax(x=y, axis=-1)) -> Make:
    return program(lambda x: then(mb.add(x=x, y=mask)))


def with_states(count: int = 1, shape: tuple[int, ...] = (1, 4, 64, 32), tokens: int = 1, reads: bool = True) -> Make:
    """Each state is read, written at its first places, and written back."""

    def body(x: Any, **states: Any) -> Any:
        for state in states.values():
            update = dense(*shape[:2], tokens, shape[3])
            old = mb.read_state(input=state) if reads else dense(*shape)
            end = np.int32([*shape[:2], tokens, shape[3]])
            new = mb.slice_update(x=old, update=update, begin=np.int32([0, 0, 0, 0]), end=end)
            mb.coreml_update_state(state=state, value=new)
        return mb.relu(x=x)

    return program(body, None, {f"s{i}": (shape, "float16") for i in range(count)})


def forgotten(x: Any, s: Any) -> Any:
    return mb.add(x=x, y=mb.reduce_sum(x=mb.read_state(input=s), axes=[-1], keep_dims=True))


def palettized_state(writer: str) -> Make:
    def body(x: Any, s: Any) -> Any:
        mb.coreml_update_state(state=s, value=mb.add(x=mb.read_state(input=s), y=np.float16(1)))
        return mb.conv(x=x, weight=palette())

    def name_writer(model: Any) -> None:
        if writer:
            model.description.metadata.userDefined["com.github.apple.coremltools.version"] = writer

    return edited(program(body, None, {"s": ((1, 4, 64, 32), "float16")}), name_writer)


def palettes_and_dense(size: int) -> Make:
    def body(x: Any) -> Any:
        y = mb.conv(x=x, weight=scaled(palette((8, 4, 1, 1)), (8, 1, 1, 1)))
        return mb.conv(x=y, weight=dense(size, 8, 1, 1))

    return program(body)


def rms(x: Any, scale_first: bool = False) -> Any:
    if scale_first:
        top = mb.reduce_max(x=mb.abs(x=x), axes=[1], keep_dims=True)
        x = mb.real_div(x=x, y=mb.maximum(x=top, y=np.float16(1e-3)))
    mean = mb.reduce_mean(x=mb.mul(x=x, y=x), axes=[1], keep_dims=True)
    return mb.mul(x=x, y=mb.rsqrt(x=mean, epsilon=np.float16(1e-5)))


def attention(x: Any) -> Any:
    return mb.scaled_dot_product_attention(query=x, key=x, value=x)


def unknown_axis(model: Any) -> None:
    tensor = model.mlProgram.functions["main"].inputs[0].type.tensorType
    tensor.dimensions[0].unknown.variadic = False


def rename_op(model: Any) -> None:
    (block,) = model.mlProgram.functions["main"].blockSpecializations.values()
    next(op for op in block.operations if op.type == "relu").type = "my_relu"


def earlier_opset(model: Any) -> None:
    function = model.mlProgram.functions["main"]
    function.blockSpecializations["CoreML7"].CopyFrom(function.blockSpecializations[function.opset])
    del function.blockSpecializations[function.opset]
    function.opset = "CoreML7"


def rename_input(model: Any) -> None:
    model.description.input[0].name = "y"


def table_lookup(x: Any) -> Any:
    rows = mb.gather(x=dense(64, 8), indices=np.int32([1, 2]), axis=0)
    return mb.add(x=x, y=mb.reduce_sum(x=rows, axes=[0]))
