"""Shapes, slices, joins, padding: against numpy, torch and coremltools' value inference, over random shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mil_programs import ct, inferred, mb, normal, outputs

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@settings(max_examples=25, deadline=None)
@given(SHAPES, st.data())
def test_shapes(shape: tuple[int, ...], data: st.DataObject) -> None:
    rank = len(shape)
    x = normal(shape)
    perm = data.draw(st.permutations(range(rank)))
    axes = sorted(data.draw(st.sets(st.integers(0, rank + 1), min_size=2, max_size=2)))
    cut = data.draw(st.integers(1, rank))
    reps = data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    flips = sorted(data.draw(st.sets(st.integers(0, rank - 1), min_size=1)))
    wide = tuple(n for i in range(rank + 2) for n in [np.expand_dims(x, tuple(axes)).shape[i]])

    def build(x: mb.Var) -> list[mb.Var]:
        expanded = mb.expand_dims(x=x, axes=axes)
        return [
            mb.transpose(x=x, perm=perm),
            expanded,
            mb.squeeze(x=expanded, axes=axes),
            mb.flatten2d(x=x, axis=cut),
            mb.reshape(x=x, shape=(-1, shape[-1])),
            mb.reshape(x=expanded, shape=wide),
            mb.tile(x=x, reps=reps),
            mb.reverse(x=x, axes=flips),
            mb.shape(x=x),
            mb.identity(x=x),
        ]

    wanted = [
        x.transpose(perm), np.expand_dims(x, tuple(axes)), x, x.reshape(int(np.prod(shape[:cut])), -1),
        x.reshape(-1, shape[-1]), x.reshape(wide), np.tile(x, reps), np.flip(x, flips), shape, x,
    ]  # fmt: skip
    for k, (have, want) in enumerate(zip(outputs(build, {"x": x}), wanted, strict=True)):
        np.testing.assert_array_equal(have, want, err_msg=str(k))


def test_zeros_in_a_shape_count_from_the_right() -> None:
    x = normal((2, 50))
    found = outputs(
        lambda x: [mb.reshape(x=x, shape=[1, 0, -1, 0]), mb.reshape(x=x, shape=[0, 5, -1])], {"x": normal((2, 50))}
    )
    assert [f.shape for f in found] == [(1, 1, 2, 50), (1, 5, 20)]
    np.testing.assert_array_equal(found[0].ravel(), x.ravel())


@st.composite
def a_slice(draw: st.DrawFn, size: int) -> tuple[int, int, int, bool, bool]:
    """(begin, end, stride, begin_mask, end_mask) that takes at least one element of an axis."""
    step = draw(st.sampled_from([1, 1, 2, -1, -2]))
    first, last = sorted((draw(st.integers(0, size - 1)), draw(st.integers(0, size - 1))))
    if step > 0:
        return first, last + 1, step, draw(st.booleans()), draw(st.booleans())
    return last, first - 1, step, draw(st.booleans()), first == 0 or draw(st.booleans())


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.data())
def test_slices(shape: tuple[int, ...], data: st.DataObject) -> None:
    x = normal(shape, 1)
    parts = [data.draw(a_slice(n)) for n in shape]
    squeeze = [data.draw(st.booleans()) for _ in shape]
    squeeze[0] = False  # a rank of 0 is not an update's
    begin, end, stride, begin_mask, end_mask = (list(v) for v in zip(*parts, strict=True))
    stride = [1 if q else s for q, s in zip(squeeze, stride, strict=True)]
    begin_mask = [m and not q for q, m in zip(squeeze, begin_mask, strict=True)]
    index = tuple(
        b if q else slice(None if bm else b, None if em else e, s)
        for b, e, s, bm, em, q in zip(begin, end, stride, begin_mask, end_mask, squeeze, strict=True)
    )
    want = x[index]
    if want.size == 0:
        return
    update = normal(want.shape, 2)
    where = {
        "begin": begin, "end": end, "stride": stride,
        "begin_mask": begin_mask, "end_mask": end_mask, "squeeze_mask": squeeze,
    }  # fmt: skip
    updated = x.copy()
    updated[index] = update
    starts, sizes = [p[0] if p[2] > 0 else 0 for p in parts], [data.draw(st.sampled_from([-1, 1])) for _ in parts]
    have, changed, sized = outputs(
        lambda x, u: [
            mb.slice_by_index(x=x, **where), mb.slice_update(x=x, update=u, **where),
            mb.slice_by_size(x=x, begin=starts, size=sizes),
        ],
        {"x": x, "u": update},
    )  # fmt: skip
    np.testing.assert_array_equal(have, want)
    np.testing.assert_array_equal(changed, updated)
    np.testing.assert_array_equal(
        sized, x[tuple(slice(b, None if s < 0 else b + s) for b, s in zip(starts, sizes, strict=True))]
    )


def test_slices_whose_place_is_known_only_at_run_time() -> None:
    x, at = normal((4, 6)), np.array([2], np.int32)

    def build(x: mb.Var, at: mb.Var) -> list[mb.Var]:
        begin = mb.concat(values=[np.array([1], np.int32), at], axis=0)
        end = mb.concat(values=[np.array([3], np.int32), mb.add(x=at, y=np.int32(3))], axis=0)
        part = mb.slice_by_index(x=x, begin=begin, end=end)
        return [
            part,
            mb.slice_update(x=x, update=mb.mul(x=part, y=np.float32(2)), begin=begin, end=end),
            mb.slice_by_size(x=x, begin=begin, size=[2, 3]),
            mb.reshape(x=x, shape=mb.concat(values=[at, np.array([-1], np.int32)], axis=0)),
        ]

    doubled = x.copy()
    doubled[1:3, 2:5] *= 2
    wanted = [x[1:3, 2:5], doubled, x[1:3, 2:5], x.reshape(2, -1)]
    for have, want in zip(outputs(build, {"x": x, "at": at}), wanted, strict=True):
        np.testing.assert_array_equal(have, want)


@settings(max_examples=20, deadline=None)
@given(SHAPES, st.data())
def test_joins_and_splits(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x, y = normal(shape, 3), normal(shape, 4)
    both = np.concatenate([x, y], axis)
    first = data.draw(st.integers(1, 2 * shape[axis] - 1)) if 2 * shape[axis] > 1 else 1

    def build(x: mb.Var, y: mb.Var) -> list[mb.Var]:
        joined = mb.concat(values=[x, y], axis=axis)
        return [
            joined,
            mb.stack(values=[x, y], axis=axis),
            mb.concat(values=[x, y], axis=axis, interleave=True),
            *mb.split(x=joined, num_splits=2, axis=axis),
            *mb.split(x=joined, split_sizes=[first, 2 * shape[axis] - first], axis=axis),
        ]

    turns = np.stack([x, y], axis % len(shape) + 1).reshape(both.shape)
    wanted = [both, np.stack([x, y], axis), turns, x, y, *np.split(both, [first], axis)]
    for k, (have, want) in enumerate(zip(outputs(build, {"x": x, "y": y}), wanted, strict=True)):
        np.testing.assert_array_equal(have, want, err_msg=str(k))


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
def test_padding(target: ct.target) -> None:
    x = normal((2, 3, 4, 5), 5)
    pads = [1, 2, 0, 3]
    found = outputs(
        lambda x: [
            mb.pad(x=x, pad=pads, mode="constant", constant_val=np.float32(1.5)),
            mb.pad(x=x, pad=pads, mode="reflect"),
            mb.pad(x=x, pad=pads, mode="replicate"),
            mb.pad(x=x, pad=[0, 0, 1, 0, 0, 0, 0, 2]),
        ],
        {"x": x},
        target=target,
    )
    t, torch_pads = torch.from_numpy(x), (0, 3, 1, 2)
    np.testing.assert_array_equal(found[0], F.pad(t, torch_pads, value=1.5))
    np.testing.assert_array_equal(found[1], F.pad(t, torch_pads, mode="reflect"))
    np.testing.assert_array_equal(found[2], F.pad(t, torch_pads, mode="replicate"))
    np.testing.assert_array_equal(found[3], F.pad(t, (0, 2, 0, 0, 1, 0)))


def test_makers_of_tensors() -> None:
    x = normal((3, 4, 5), 6)
    i = np.array([0, 2, 1], np.int32)

    def build(x: mb.Var, i: mb.Var) -> list[mb.Var]:
        n = mb.reduce_max(x=i, axes=[0], keep_dims=False)
        return [
            mb.range_1d(start=np.int32(1), end=np.int32(9), step=np.int32(3)),
            mb.range_1d(start=np.int32(0), end=n, step=np.int32(1)),
            mb.fill(shape=[2, 3], value=np.float32(7)),
            mb.fill_like(ref_tensor=x, value=np.int32(4)),
            mb.band_part(x=x, lower=1, upper=0),
            mb.band_part(x=x, lower=-1, upper=2),
            mb.one_hot(indices=i, one_hot_vector_size=4, axis=-1, on_value=np.float32(2), off_value=np.float32(-1)),
            mb.one_hot(indices=i, one_hot_vector_size=4, axis=0),
            mb.non_zero(x=i),
        ]

    hot = np.eye(4)[i]
    wanted = [
        [1, 4, 7], [0, 1], np.full((2, 3), 7), np.full(x.shape, 4), np.tril(x) - np.tril(x, -2), x - np.triu(x, 3),
        hot * 3 - 1, hot.T, [[1], [2]],
    ]  # fmt: skip
    for k, (have, want) in enumerate(zip(outputs(build, {"x": x, "i": i}), wanted, strict=True)):
        np.testing.assert_array_equal(have, np.asarray(want, have.dtype), err_msg=str(k))


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.data())
def test_slices_beyond_the_ends_and_from_them(shape: tuple[int, ...], data: st.DataObject) -> None:
    x, rank = normal(shape, 1), len(shape)

    def each(values: st.SearchStrategy[int] | st.SearchStrategy[bool]) -> list[int]:
        return data.draw(st.lists(values, min_size=rank, max_size=rank))

    stride, begin, end = each(st.sampled_from([1, 2, 3, -1, -2])), each(st.integers(-7, 7)), each(st.integers(-7, 7))
    masks = {"begin_mask": each(st.booleans()), "end_mask": each(st.booleans())}
    numpy_index = tuple(
        slice(None if bm else b, None if em else e, s)
        for b, e, s, bm, em in zip(begin, end, stride, *masks.values(), strict=True)
    )
    assume(x[numpy_index].size > 0)
    (have,) = outputs(
        lambda x, b, e: mb.slice_by_index(x=x, begin=b, end=e, stride=stride, **masks),
        {"x": x, "b": np.array(begin, np.int32), "e": np.array(end, np.int32)},
    )
    np.testing.assert_array_equal(have, x[numpy_index])
    starts = [data.draw(st.integers(-n, n - 1)) for n in shape]
    sizes = [data.draw(st.sampled_from([-1, 1])) for _ in shape]
    (part,) = outputs(
        lambda x, b, s: mb.slice_by_size(x=x, begin=b, size=s),
        {"x": x, "b": np.array(starts, np.int32), "s": np.array(sizes, np.int32)},
    )
    want = inferred(lambda x: mb.slice_by_size(x=x, begin=starts, size=sizes), {"x": x})
    np.testing.assert_array_equal(part, want[0])


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.sampled_from(["float32", "int32"]), st.data())
def test_value_inference_agrees(shape: tuple[int, ...], dtype: str, data: st.DataObject) -> None:
    rank = len(shape)
    x = (normal(shape, 8) * 3).astype(dtype)
    count = data.draw(st.integers(1, rank))
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate"]))
    most = [n - 1 if mode == "reflect" else 3 for n in shape[-count:]]
    pads = [data.draw(st.integers(0, m)) for m in most for _ in range(2)]
    axis, cuts = data.draw(st.integers(-rank, rank - 1)), [c for c in range(1 - rank, rank) if c]
    band = data.draw(st.integers(-1, 4)), data.draw(st.integers(-1, 4))
    flips = data.draw(st.sets(st.integers(0, rank - 1), min_size=1))
    keep = [0 if data.draw(st.booleans()) else n for n in shape]

    def build(x: mb.Var) -> list[mb.Var]:
        wide = mb.tile(x=mb.expand_dims(x=x, axes=[-1]), reps=[1] * rank + [3])
        f = mb.cast(x=x, dtype="fp32")
        return [
            mb.pad(x=f, pad=pads, mode=mode, constant_val=np.float32(2.5)),
            mb.band_part(x=wide, lower=band[0], upper=band[1]),
            *(mb.flatten2d(x=x, axis=c) for c in cuts),
            mb.reverse(x=x),
            mb.reverse(x=x, axes=sorted(flips)),
            mb.squeeze(x=mb.expand_dims(x=wide, axes=[0, -2])),
            mb.concat(values=[x, x, x], axis=axis),
            mb.stack(values=[x, x, x], axis=axis),
            mb.reshape(x=x, shape=keep),
            mb.transpose(x=wide, perm=[*range(1, rank + 1), 0]),
            mb.non_zero(x=x),
            mb.fill_like(ref_tensor=x, value=np.float32(3)),
            mb.shape(x=wide),
            *mb.split(x=wide, num_splits=3, axis=-1),
        ]

    for k, (have, want) in enumerate(zip(outputs(build, {"x": x}), inferred(build, {"x": x}), strict=True)):
        if want is not None:
            np.testing.assert_array_equal(have, want, err_msg=str(k))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.integers(1, 5), st.data())
def test_one_hot_on_any_axis(shape: list[int], size: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    i = np.random.default_rng(0).integers(0, size, shape).astype(np.int32)
    values = data.draw(st.sampled_from([(np.float32(2), np.float32(-1)), (np.int32(7), np.int32(3)), (True, False)]))
    both = {"on_value": values[0], "off_value": values[1]}
    (found, dynamic) = outputs(
        lambda i, n: [
            mb.one_hot(indices=i, one_hot_vector_size=size, axis=axis, **both),
            mb.one_hot(indices=i, one_hot_vector_size=mb.squeeze(x=n, axes=[0]), axis=axis, **both),
        ],
        {"i": i, "n": np.array([size], np.int32)},
    )
    hot = torch.nn.functional.one_hot(torch.from_numpy(i).long(), size).bool().numpy()
    want = np.moveaxis(np.where(hot, *values), -1, axis)
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(dynamic, want)


@settings(max_examples=25, deadline=None)
@given(st.integers(-20, 20), st.integers(-20, 20), st.sampled_from([1, 2, 7, -1, -3]), st.booleans())
def test_ranges(start: int, end: int, step: int, floats: bool) -> None:
    dtype = np.float32 if floats else np.int32
    a, b, s = (np.array([v], dtype) * dtype(0.37 if floats else 1) for v in (start, end, step))

    def build(a: mb.Var, b: mb.Var, s: mb.Var) -> mb.Var:
        scalars = {n: mb.squeeze(x=v, axes=[0]) for n, v in (("start", a), ("end", b), ("step", s))}
        return mb.range_1d(**scalars)

    (found,) = outputs(build, {"a": a, "b": b, "s": s})
    np.testing.assert_allclose(found, np.arange(a[0], b[0], s[0]), rtol=1e-6, atol=1e-6)


def test_joins_of_scalars_uneven_and_interleaved() -> None:
    x, y, s = normal((2, 3)), normal((2, 4), 1), np.array([5], np.int32)

    def build(x: mb.Var, y: mb.Var, s: mb.Var) -> list[mb.Var]:
        scalar = mb.squeeze(x=s, axes=[0])
        sizes = mb.concat(values=[np.int32(1), scalar, np.int32(1)], axis=0)
        joined = mb.concat(values=[x, y], axis=-1)
        return [
            mb.concat(values=[scalar, np.int32(3)], axis=0),
            joined,
            mb.concat(values=[x, x, mb.mul(x=x, y=np.float32(2))], axis=0, interleave=True),
            mb.fill(shape=sizes, value=np.int32(4)),
            mb.tile(x=x, reps=mb.concat(values=[np.int32(2), np.int32(1)], axis=0)),
            *mb.split(x=joined, split_sizes=[1, 5, 1], axis=-1),
        ]

    both = np.concatenate([x, y], 1)
    turns = np.stack([x, x, 2 * x], 1).reshape(6, 3)
    wanted = [[5, 3], both, turns, np.full((1, 5, 1), 4), np.tile(x, (2, 1)), both[:, :1], both[:, 1:6], both[:, 6:]]
    for have, want in zip(outputs(build, {"x": x, "y": y, "s": s}), wanted, strict=True):
        np.testing.assert_array_equal(have, want)
