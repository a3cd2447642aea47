"""Our ops against coremltools' registry: the same names, in every opset the same parameters with the same defaults."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.ops.base import CONVERTERS, GIVEN
from satchel.runtime.mil.ops.binding import check_arguments, signature
from satchel.runtime.mil.ops.control import BLOCK_OPS

CORE: Mapping[str, Mapping[Any, Any]] = SSAOpRegistry.core_ops
NAMES = sorted(set(OPS) & set(CORE))

# Core ops that are executed, but are no functions of values.
NO_FUNCTIONS = {
    "const": "a value of the program, which constants.py reads",
    "read_state": "names a state's content; the compiler resolves it",
    "cond": "has blocks, see ops/control.py",
    "while_loop": "has blocks, see ops/control.py",
}
# Core ops that no saved ML Program can hold, or whose meaning nobody has written down.
LEFT_OUT = {
    "_const_symbolic": "coremltools' stand-in, as it reads TensorFlow, for a constant that it does not know yet",
}
# Parameters whose default depends on other arguments; our functions find it themselves where the argument is absent.
FOUND_AT_RUN_TIME = {
    ("crop_resize", "box_indices"), ("fill", "value"), ("fill_like", "value"), ("layer_norm", "axes"),
    ("linear", "bias"), ("one_hot", "on_value"), ("one_hot", "off_value"),
    *((op, p) for op in ("conv", "conv_quantized", "conv_transpose") for p in ("strides", "pad", "dilations")),
    *((op, p) for op in ("avg_pool", "l2_pool", "max_pool") for p in ("strides", "pad")),
}  # fmt: skip


def test_every_core_op_is_executed_or_left_out_for_a_reason() -> None:
    assert len(CORE) == 168  # coremltools 9.0
    assert set(OPS) | set(NO_FUNCTIONS) | set(LEFT_OUT) == set(CORE)
    assert not set(OPS) & (set(NO_FUNCTIONS) | set(LEFT_OUT))
    assert set(BLOCK_OPS) == {"cond", "while_loop"}
    executed = len(OPS) + len(NO_FUNCTIONS)
    assert executed == len(CORE) - len(LEFT_OUT)


@pytest.mark.parametrize("name", NAMES)
def test_an_op_has_the_parameters_of_the_format_and_no_others(name: str) -> None:
    ours = signature(OPS[name].run)
    names = {*ours.arrays, *ours.statics, *([ours.variadic] if ours.variadic else [])}
    assert names == set().union(*(v.input_spec.input_types for v in CORE[name].values()))


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_of_each_opset_are_accepted(name: str) -> None:
    for version in CORE[name].values():
        parameters = version.input_spec.input_types
        check_arguments(OPS[name], name, parameters)
        check_arguments(OPS[name], name, {n: p for n, p in parameters.items() if not p.optional})


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_those_of_each_opset(name: str) -> None:
    run = OPS[name].run
    ours = {} if isinstance(run, np.ufunc) else inspect.signature(run).parameters
    for opset, version in CORE[name].items():
        for parameter, wanted in defaults(version).items():
            have = ours[parameter].default
            found = wanted is None or (name, parameter) in FOUND_AT_RUN_TIME
            assert have is None if found else have == wanted, (opset, parameter, wanted)


def defaults(op: Any) -> dict[str, Any]:
    """The defaults of an op, for arguments of rank 4."""
    instance = op.__new__(op)
    for name in op.input_spec.input_types:
        setattr(instance, name, SimpleNamespace(rank=4, shape=(2, 3, 4, 5), dtype=types.fp32, val=None))
    return dict(instance.default_inputs().items())


def test_small_constants_are_annotated_with_a_known_kind() -> None:
    for name, op in OPS.items():
        if isinstance(op.run, np.ufunc):
            continue
        for parameter in inspect.signature(op.run).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in GIVEN:
                assert str(parameter.annotation).partition(" |")[0] in CONVERTERS, (name, parameter.name)
