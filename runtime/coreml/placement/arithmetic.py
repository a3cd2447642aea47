"""How much an op computes and how many bytes of weights it reads, from declared shapes alone.

Multiply-accumulates are those of products: convs, matrix products, attention and recurrent layers. An op of another
kind has none, but its work is counted too, as the numbers that it reads or writes, so that a program without products
is not taken for an empty one. A dimension that is not known before the program runs counts as 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from satchel.runtime.coreml.survey import FunctionSurvey, Shape, SurveyedOp, elements
from satchel.runtime.coreml.weights import Extent, extent, leaves
from satchel.runtime.mil.ops import OPS

MOVES = frozenset(
    {name for name, op in OPS.items() if op.view}
    | {"read_state", "write_state", "slice_update", "concat", "stack", "tile", "fill", "fill_like", "shape"}
)
"""Ops that only move values, or take them as another type."""
ATTENTION = "scaled_dot_product_attention"
RECURRENT_WEIGHTS = ("weight_ih", "weight_hh", "weight_ih_back", "weight_hh_back")


def multiply_accumulates(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Multiplications whose results are summed; 0 for an op that is no product."""
    return COUNTS[op.type](function, op) if op.type in COUNTS else 0


def work(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Multiply-accumulates, or the numbers that an elementwise op or a reduction reads or writes; 0 for a move."""
    if op.type in MOVES:
        return 0
    written = sum(elements(function.types[name][1]) for name in op.outputs if name in function.types)
    read = elements(_shape(function, op, "x")) if op.type.startswith("reduce_") else 0
    return max(multiply_accumulates(function, op), written, read)


def is_dynamic(function: FunctionSurvey, op: SurveyedOp) -> bool:
    """Whether a result has a dimension that is not known before the program runs."""
    return any(None in function.types[name][1] for name in op.outputs if name in function.types)


def weight_extents(function: FunctionSurvey, op: SurveyedOp) -> tuple[Extent, ...]:
    """Where the weights that an op reads lie in the weight files, behind the ops that expand them."""
    return tuple(sorted({extent(function.package, proto) for proto in _stored(function, op)}))


def _stored(function: FunctionSurvey, op: SurveyedOp) -> Iterator[Any]:
    """The protos of constants in weight files that an op reads."""
    for values in op.arguments.values():
        for value in values:
            proto, maker = function.constant(value), function.makers.get(value) if isinstance(value, str) else None
            found = [proto] if proto is not None else leaves(function, maker) if maker and maker.is_compression else ()
            yield from (p for p in found if p.WhichOneof("value") == "blobFileValue")


# ---- products, by type ---------------------------------------------------------------------------------------------


def _shape(function: FunctionSurvey, op: SurveyedOp, parameter: str) -> Shape:
    found = function.argument_type(op, parameter)
    return found[1] if found else ()


def _results(function: FunctionSurvey, op: SurveyedOp) -> int:
    found = function.result_type(op)
    return elements(found[1]) if found else 0


def _conv(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Each result sums a kernel [O, I / groups, *K]."""
    return _results(function, op) * elements(_shape(function, op, "weight")[1:])


def _conv_transpose(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Each input is spread by a kernel [I, O / groups, *K]; what falls outside is counted too."""
    return elements(_shape(function, op, "x")) * elements(_shape(function, op, "weight")[1:])


def _linear(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Weight [O, I]."""
    return _results(function, op) * elements(_shape(function, op, "weight")[-1:])


def _matmul(function: FunctionSurvey, op: SurveyedOp) -> int:
    """[..., M, K] by [..., K, N], x perhaps transposed."""
    shape = _shape(function, op, "x")
    transposed = function.setting(op, "transpose_x")
    axis = -2 if transposed is not None and bool(transposed) and len(shape) > 1 else -1
    return _results(function, op) * elements(shape[axis:][:1])


def _einsum(function: FunctionSurvey, op: SurveyedOp) -> int:
    """The sizes of all its letters multiplied."""
    equation = str(function.setting(op, "equation") or "")
    sizes: dict[str, int] = {}
    for term, value in zip(equation.partition("->")[0].split(","), op.arguments.get("values", ()), strict=False):
        found = function.type_of(value)
        for letter, size in zip(term.strip(), found[1] if found else (), strict=False):
            sizes[letter] = max(sizes.get(letter, 1), size or 1)
    return prod(sizes.values())


def _attention(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Scores [..., L, S] of queries [..., L, E] and keys [..., S, E], and their sums of values [..., S, V]."""
    query, key, value = (_shape(function, op, name) for name in ("query", "key", "value"))
    length = elements(key[-2:-1])
    return elements(query) * length + elements(query[:-1]) * length * elements(value[-1:])


def _recurrent(function: FunctionSurvey, op: SurveyedOp) -> int:
    """Every weight once for each place of x [S, B, I]."""
    shapes = [_shape(function, op, name) for name in RECURRENT_WEIGHTS]
    return elements(_shape(function, op, "x")[:2]) * sum(elements(shape) for shape in shapes if shape)


COUNTS: dict[str, Callable[[FunctionSurvey, SurveyedOp], int]] = {
    "conv": _conv, "conv_quantized": _conv, "conv_transpose": _conv_transpose, "linear": _linear, "matmul": _matmul,
    "einsum": _einsum, ATTENTION: _attention, "lstm": _recurrent, "gru": _recurrent, "rnn": _recurrent,
}  # fmt: skip
