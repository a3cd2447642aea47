"""For every rule a small program that breaks it, and its neighbour that does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mil_programs import ct, mb
from rule_programs import (
    INFINITY,
    Make,
    attention,
    codes,
    conv,
    dense,
    earlier_opset,
    edited,
    forgotten,
    int8_kernel,
    kernel,
    masked,
    of_shape,
    palette,
    palettes_and_dense,
    palettized_state,
    program,
    rename_input,
    rename_op,
    rms,
    scaled,
    table_lookup,
    unknown_axis,
    with_states,
)


@dataclass(frozen=True)
class Case:
    """Two programs, or one program and two targets, or one program and two settings of a rule.

    Attributes:
        bad, good: make packages; `good` is `bad` where there is one program only.
        target, good_target: for which they are judged.
        settings, good_settings: parameters of the rule to put in place of those in its file.
    """

    bad: Make
    good: Make | None = None
    target: str | None = None
    good_target: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    good_settings: dict[str, Any] = field(default_factory=dict)


RELU = program(lambda x: mb.relu(x=x))
QUANTIZED = program(
    lambda x: mb.dequantize(
        input=mb.quantize(input=x, scale=np.float16(0.1), output_dtype="int8"), scale=np.float16(0.1)
    )
)
BLOCKS = program(
    lambda x: mb.matmul(x=x, y=scaled(codes((8, 64), "int4", 7), (8, 2))),
    {"x": ((1, 8), "float16")},
)
PER_CHANNEL = program(
    lambda x: mb.matmul(x=x, y=scaled(codes((8, 64), "int4", 7), (8, 1))),
    {"x": ((1, 8), "float16")},
)


def looped(x: Any) -> Any:
    """Doubles x three times."""
    less = lambda i, _: mb.less(x=i, y=3)  # noqa: E731
    body = lambda i, y: (mb.add(x=i, y=1), mb.mul(x=y, y=np.float16(2)))  # noqa: E731
    return mb.while_loop(_cond=less, _body=body, loop_vars=(np.int32(0), x))[1]


CASES: dict[str, Case] = {
    "CM01": Case(program(attention), None, "iOS17", "iOS18"),
    "CM02": Case(edited(program(attention), earlier_opset), program(attention)),
    "CM03": Case(program(attention), None, "macOS14", "macOS15"),
    "CM04": Case(edited(RELU, rename_op), RELU),
    "CM05": Case(conv(palette), None, "iOS17", "iphone-15-pro"),
    "CM06": Case(program(forgotten, None, {"s": ((1, 4, 1, 32), "float16")}), with_states()),
    "CM07": Case(with_states(reads=False), with_states()),
    "CM08": Case(program(lambda x: mb.relu(x=x), target=ct.target.iOS16), None, "iOS15", "iOS16"),
    "CM09": Case(edited(RELU, rename_input), RELU),
    "NE01": Case(of_shape(1, 30000, 1, 1), of_shape(1, 15000, 1, 2)),
    "NE02": Case(of_shape(1, 1, 1, 16385), of_shape(1, 65536, 1, 16384), "H15", "H15"),
    "NE03": Case(of_shape(1, 1, 1, 65537), of_shape(1, 1, 1, 65536), "H16", "H16"),
    "NE04": Case(of_shape(1, 1, 1, 1, 1, 4), of_shape(1, 1, 1, 1, 4)),
    "NE05a": Case(of_shape(1, 4, dtype="float32"), of_shape(1, 4)),
    "NE05b": Case(program(lambda x: mb.add(x=x, y=1), {"x": ((4,), "int32")}), RELU),
    "NE05c": Case(of_shape(1, 4, dtype="float32"), of_shape(1, 4)),
    "NE06": Case(edited(RELU, unknown_axis), RELU),
    "NE07": Case(program(lambda x: mb.linear(x=x, weight=dense(4, 8))), conv(lambda: dense(8, 4, 1, 1))),
    "NE08a": Case(masked(np.full((1, 1, 1, 8), INFINITY)), masked(np.full((1, 1, 1, 8), np.float16(-4e4)))),
    "NE08b": Case(
        program(lambda x: mb.softmax(x=x, axis=-1), {"x": ((1, 1024, 1, 1024), "float16")}),
        program(lambda x: mb.softmax(x=x, axis=1), {"x": ((1, 1024, 1, 1024), "float16")}),
    ),
    "NE09": Case(program(attention), program(lambda x: mb.softmax(x=x, axis=1))),
    "NE10": Case(program(rms), program(lambda x: rms(x, scale_first=True))),
    "NE11a": Case(program(table_lookup), None, "H13", "H14"),
    "NE11b": Case(program(table_lookup), None, settings={"least_bytes": 1024}, good_settings={"least_bytes": 1025}),
    "NE12a": Case(program(lambda x: mb.mod(x=x, y=np.float16(3))), RELU),
    "NE12b": Case(program(lambda x: mb.sin(x=x)), None, "H14", "H15"),
    "NE12c": Case(
        program(lambda x: mb.reduce_argmax(x=x, axis=-1), {"x": ((1, 2049), "float16")}),
        program(lambda x: mb.reduce_argmax(x=x, axis=0), {"x": ((1, 2049), "float16")}),
    ),
    "NE12d": Case(program(looped), RELU),
    "NE13a": Case(kernel(14), kernel(13), "H13", "H13"),
    "NE13b": Case(kernel(17), kernel(16), "H15", "H15"),
    "NE13c": Case(conv(lambda: dense(2, 4, 1, 1), strides=[1, 5]), conv(lambda: dense(2, 4, 1, 1), strides=[1, 6])),
    "NE13d": Case(conv(palette, strides=[3, 3]), conv(palette, strides=[2, 2])),
    "NE14": Case(conv(int8_kernel), None, "H13", "H14"),
    "NE15": Case(BLOCKS, PER_CHANNEL),
    "NE16a": Case(conv(lambda: palette((32, 4, 1, 1), 8)), conv(lambda: palette((32, 4, 1, 1), 4))),
    "NE16b": Case(conv(lambda: palette(bits=3)), conv(palette)),
    "NE17a": Case(conv(lambda: scaled(palette(), (8, 1, 1, 1))), PER_CHANNEL),
    "NE17b": Case(palettes_and_dense(256), palettes_and_dense(8)),
    "NE17c": Case(palettized_state("9.0"), palettized_state("8.3.0")),
    "NE18": Case(QUANTIZED, None, "H15", "H16"),
    "NE19a": Case(conv(lambda: dense(64, 4, 1, 1)), None, "iOS18", "macOS15", {"most_bytes": 64}, {"most_bytes": 64}),
    "NE19b": Case(conv(lambda: dense(64, 4, 1, 1)), None, settings={"most_bytes": 64}),
    "NE21a": Case(with_states(shape=(1, 4, 64, 33)), with_states(shape=(1, 4, 33, 64))),
    "NE21b": Case(with_states(3), with_states(2)),
    "NE21c": Case(with_states(tokens=33), with_states(tokens=32)),
    "NE22": Case(with_states(), None, settings={"tokens": 63}, good_settings={"tokens": 64}),
    "NE23": Case(conv(lambda: dense(64, 4, 1, 1)), None, settings={"least_channels": 64}),
    "NE27": Case(program(lambda x: mb.silu(x=x)), program(lambda x: mb.mul(x=x, y=mb.sigmoid(x=x)))),
}  # fmt: skip
