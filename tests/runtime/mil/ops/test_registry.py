"""Our ops against coremltools' registry: the same names, the same parameters in every opset."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.ops.base import CONVERTERS, GIVEN
from satchel.runtime.mil.ops.binding import signature


def parameters(name: str) -> tuple[set[str], set[str]]:
    """(every parameter of an op in any opset, those that all opsets require)."""
    known: set[str] = set()
    required: list[set[str]] = []
    for version in SSAOpRegistry.core_ops[name].values():
        inputs = version.input_spec.input_types
        known |= set(inputs)
        required.append({n for n, t in inputs.items() if not t.optional})
    return known, set.intersection(*required)


@pytest.mark.parametrize("name", sorted(OPS))
def test_an_op_has_the_parameters_of_the_format(name: str) -> None:
    ours, (known, required) = signature(OPS[name].run), parameters(name)
    names = {*ours.arrays, *ours.statics, *([ours.variadic] if ours.variadic else [])}
    assert names == known
    assert ours.required <= required


def test_small_constants_are_annotated_with_a_known_kind() -> None:
    for name, op in OPS.items():
        if isinstance(op.run, np.ufunc):
            continue
        for parameter in inspect.signature(op.run).parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in GIVEN:
                assert str(parameter.annotation).partition(" |")[0] in CONVERTERS, (name, parameter.name)
