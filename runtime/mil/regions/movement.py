"""Ops that move values as ONNX nodes; those that copy nothing in numpy copy nothing here where that can be."""

# ruff: noqa: D103 - each function is the op of its name, written in ONNX's ops

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from satchel.runtime.mil.ops.base import Bools, Ints
from satchel.runtime.mil.regions.operands import Graph, Operand, Shape, Unsupported, reshaped

LAST = 2**31 - 1  # an end beyond every axis


def reshape(g: Graph, x: Operand, *, shape: Ints) -> Operand:
    if 0 in shape:
        raise Unsupported
    rest = math.prod(n for n in shape if n != -1)
    return reshaped(x, tuple(math.prod(x.shape) // rest if n == -1 else n for n in shape))


def transpose(g: Graph, x: Operand, *, perm: Ints) -> Operand:
    perm = tuple(p % x.rank for p in perm)
    shape = tuple(x.shape[p] for p in perm)
    kept = [p for p in perm if x.shape[p] != 1]
    if kept == sorted(kept):  # only axes of length 1 move
        return reshaped(x, shape)
    # Axes of length 1 keep onnxruntime from its fast ways.
    ranks, plain = sorted(kept), g.fit(x, tuple(n for n in x.shape if n != 1))
    made = g.turned(plain, [ranks.index(p) for p in kept])
    return Operand(made.name, shape, laid=made.layout)


def swapped(g: Graph, x: Operand, first: int, second: int) -> Operand:
    """X with two axes exchanged."""
    perm = list(range(x.rank))
    perm[first], perm[second] = perm[second], perm[first]
    return transpose(g, x, perm=tuple(perm))


def expand_dims(g: Graph, x: Operand, *, axes: Ints) -> Operand:
    rank = x.rank + len(axes)
    new, rest = {a % rank for a in axes}, iter(x.shape)
    if len(new) != len(axes):
        raise Unsupported
    return reshaped(x, tuple(1 if i in new else next(rest) for i in range(rank)))


def squeeze(g: Graph, x: Operand, *, axes: Ints | None = None) -> Operand:
    gone = {i for i, n in enumerate(x.shape) if n == 1} if axes is None else {a % x.rank for a in axes}
    return reshaped(x, tuple(n for i, n in enumerate(x.shape) if i not in gone))


def split(
    g: Graph, x: Operand, *, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[Operand, ...]:
    length = x.shape[axis]
    count = num_splits or 1
    sizes = split_sizes or (length // count,) * count
    if sum(sizes) != length or min(sizes) < 1:
        raise Unsupported
    at = axis % x.rank
    axes = x.axes()
    x = x if axes is not None and at in axes else g.fit(x, x.shape)
    place = axes[at] if axes is not None and at in axes else at
    parts = g.add_many("Split", len(sizes), x, g.constant(sizes), axis=place)
    return tuple(
        Operand(name, _with(x.shape, at, n), laid=_with(x.layout, place, n))
        for name, n in zip(parts, sizes, strict=True)
    )


def _with(shape: Shape, axis: int, length: int) -> Shape:
    """A shape with another length of one axis."""
    return (*shape[:axis], length, *shape[axis + 1 :])


def concat(g: Graph, *values: Operand, axis: int, interleave: bool = False) -> Operand:
    if interleave or values[0].rank == 0:
        raise Unsupported
    at = axis % values[0].rank
    shape = _with(values[0].shape, at, sum(v.shape[at] for v in values))
    if any(_with(v.shape, at, shape[at]) != shape for v in values):
        raise Unsupported
    if all(v.layout == v.shape for v in values):
        return g.laid("Concat", *values, shape=shape, axis=at)
    kept = [i for i, n in enumerate(shape) if n != 1 or i == at]
    parts = [g.fit(v, tuple(v.shape[i] for i in kept)) for v in values]
    return g.laid("Concat", *parts, shape=shape, layout=tuple(shape[i] for i in kept), axis=kept.index(at))


def stack(g: Graph, *values: Operand, axis: int) -> Operand:
    at = axis % (values[0].rank + 1)
    return concat(g, *(expand_dims(g, v, axes=(at,)) for v in values), axis=at)


def slice_by_index(
    g: Graph,
    x: Operand,
    *,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Operand:
    if stride is not None and any(s < 1 for s in stride):
        raise Unsupported
    no = (False,) * x.rank
    begin_mask, end_mask, squeeze_mask = begin_mask or no, end_mask or no, squeeze_mask or no
    starts = [0 if m else b for b, m in zip(begin, begin_mask, strict=True)]
    ends = [LAST if m else e for e, m in zip(end, end_mask, strict=True)]
    for i in (i for i in range(x.rank) if squeeze_mask[i]):  # one element; -1 + 1 would be the front
        ends[i] = LAST if starts[i] == -1 else starts[i] + 1
    found = _sliced(g, x, starts, ends, stride or (1,) * x.rank)
    gone = tuple(i for i in range(x.rank) if squeeze_mask[i])
    return squeeze(g, found, axes=gone) if gone else found


def slice_by_size(g: Graph, x: Operand, *, begin: Ints, size: Ints) -> Operand:
    if any(b < 0 for b in begin):
        raise Unsupported
    ends = [LAST if s == -1 else b + s for b, s in zip(begin, size, strict=True)]
    return _sliced(g, x, list(begin), ends, (1,) * x.rank)


def _sliced(g: Graph, x: Operand, starts: Sequence[int], ends: Sequence[int], steps: Ints) -> Operand:
    lengths = [len(range(n)[slice(b, e, s)]) for n, b, e, s in zip(x.shape, starts, ends, steps, strict=True)]
    if 0 in lengths:
        raise Unsupported
    cut = [i for i, n in enumerate(lengths) if n != x.shape[i]]
    if not cut:
        return x
    numbers = ([v[i] for i in cut] for v in (starts, ends, range(x.rank), steps))
    return g.add("Slice", x, *(g.constant(v) for v in numbers), shape=tuple(lengths))


def pad(g: Graph, x: Operand, *, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Operand:
    if mode != "constant":
        raise Unsupported
    pairs = [(0, 0)] * (x.rank - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    shape = tuple(n + b + a for n, (b, a) in zip(x.shape, pairs, strict=True))
    ends = [b for b, _ in pairs] + [a for _, a in pairs]
    return g.add("Pad", x, g.constant(ends), g.constant(float(constant_val)), shape=shape)


def gather(
    g: Graph, x: Operand, indices: Operand, *, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Operand:
    if batch_dims or x.rank == 0:
        raise Unsupported
    at = axis % x.rank
    return g.add("Gather", x, indices, shape=(*x.shape[:at], *indices.shape, *x.shape[at + 1 :]), axis=at)


LOWERINGS: dict[str, Callable[..., Any]] = {
    "concat": concat,
    "expand_dims": expand_dims,
    "gather": gather,
    "pad": pad,
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "transpose": transpose,
}
