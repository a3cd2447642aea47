"""Matrix products and attention, against torch in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mil_programs import ct, mb, normal, outputs

PRODUCT = "(i,j),(j,k)->(i,k)"


@settings(max_examples=25, deadline=None)
@given(hnp.mutually_broadcastable_shapes(signature=PRODUCT, max_dims=2, max_side=5), st.booleans(), st.booleans())
def test_matmul_broadcasts_and_transposes(shapes: hnp.BroadcastableShapes, tx: bool, ty: bool) -> None:
    x, y = (normal(s, i) for i, s in enumerate(shapes.input_shapes))
    want = x.astype(np.float64) @ y
    x, y = (np.ascontiguousarray(a.swapaxes(-1, -2)) if t else a for a, t in ((x, tx), (y, ty)))
    (found,) = outputs(lambda x, y: mb.matmul(x=x, y=y, transpose_x=tx, transpose_y=ty), {"x": x, "y": y})
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (5, 6), (1, 1, 6), (2, 3, 6)])
@pytest.mark.parametrize("bias", [False, True])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    x, w, b = normal(shape), normal((4, 6), 1), normal((4,), 2) if bias else None
    (found,) = outputs(lambda x: mb.linear(x=x, weight=w, bias=b), {"x": x})
    np.testing.assert_allclose(found, x @ w.T + (0 if b is None else b), rtol=1e-5, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=5, max_size=5), st.sampled_from(["", "x", "y"]), st.booleans())
def test_einsum_of_the_engine_layout(sizes: list[int], single: str, letters: bool) -> None:
    n, c, h, w, u = sizes
    x, y = normal((n, c, 1 if single == "x" else h, w)), normal((n, w, 1 if single == "y" else h, u), 1)
    equation = "nchw,nwhu->nchu" if letters else "bkhq,bqhc->bkhc"
    (found,) = outputs(lambda x, y: mb.einsum(values=[x, y], equation=equation), {"x": x, "y": y})
    want = np.einsum(equation, *(np.broadcast_to(a, (n, a.shape[1], h, a.shape[3])) for a in (x, y)))
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-5)
    (three,) = outputs(lambda x, y: mb.einsum(values=[x, y], equation="chw,whr->chr"), {"x": x[0], "y": y[0]})
    np.testing.assert_allclose(three, want[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mask", ["none", "bool", "float"])
def test_attention(mask: str) -> None:
    q, k, v = normal((1, 3, 4, 8), 0, 3), normal((1, 3, 6, 8), 1), normal((1, 3, 6, 5), 2)
    see = np.tril(np.ones((4, 6), np.int32), 2)
    added = normal((4, 6), 3)

    def build(q: mb.Var, k: mb.Var, v: mb.Var, see: mb.Var, added: mb.Var) -> mb.Var:
        given = {"none": {}, "bool": {"attn_mask": mb.cast(x=see, dtype="bool")}, "float": {"attn_mask": added}}[mask]
        return mb.scaled_dot_product_attention(query=q, key=k, value=v, **given)

    (found,) = outputs(build, {"q": q, "k": k, "v": v, "see": see, "added": added})
    given = {"none": None, "bool": torch.from_numpy(see).bool(), "float": torch.from_numpy(added).double()}[mask]
    want = F.scaled_dot_product_attention(*(torch.from_numpy(a).double() for a in (q, k, v)), attn_mask=given)
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)


def test_in_fp16_products_are_accumulated_in_fp32_and_rounded_once() -> None:
    x = np.full((1, 4096), 0.1, np.float16)
    w = np.full((3, 4096), 0.1, np.float16)
    (found,) = outputs(lambda x: mb.linear(x=x, weight=w), {"x": x}, precision="fp16")
    exact = (x.astype(np.float64) @ w.T.astype(np.float64)).astype(np.float16)
    np.testing.assert_array_equal(found, exact)  # a running sum in fp16 would stop growing near 32


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=0, max_size=2), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_integers_vectors_and_mixed_types(batch: list[int], inner: int, out: int, turned: bool) -> None:
    rng = np.random.default_rng(inner)
    i, j = (rng.integers(-9, 9, s).astype(np.int32) for s in ((*batch, 2, inner), (out, inner)))
    vector, w = normal((inner,), 1), normal((out, inner), 2).astype(np.float16)
    y = np.ascontiguousarray(j.T) if not turned else j

    def build(i: mb.Var, y: mb.Var, v: mb.Var) -> list[mb.Var]:
        return [
            mb.matmul(x=i, y=y, transpose_y=turned),
            mb.linear(x=i, weight=j, bias=np.arange(out, dtype=np.int32)),
            mb.matmul(x=v, y=np.ascontiguousarray(w.T)),  # from iOS 17 a constant may be of another type
            mb.linear(x=v, weight=w),
        ]

    product, linear, dot, mixed = outputs(build, {"i": i, "y": y, "v": vector}, target=ct.target.iOS17)
    np.testing.assert_array_equal(product, i @ j.T)
    np.testing.assert_array_equal(linear, i @ j.T + np.arange(out))
    for have in (dot, mixed):
        np.testing.assert_allclose(have, vector.astype(np.float64) @ w.T, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=2), st.lists(st.integers(1, 5), min_size=4, max_size=4), st.data()
)
def test_attention_with_masks_of_any_broadcast(batch: list[int], sizes: list[int], data: st.DataObject) -> None:
    rows, keys, inner, out = sizes
    q, k, v = (normal((*batch, *s), i) for i, s in enumerate([(rows, inner), (keys, inner), (keys, out)]))
    shape = tuple(data.draw(st.sampled_from([1, n])) for n in (*batch, rows))[data.draw(st.integers(0, len(batch))) :]
    mask = normal((*shape, keys), 3)
    (found,) = outputs(
        lambda q, k, v, mask: mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask),
        {"q": q, "k": k, "v": v, "mask": mask},
    )
    want = F.scaled_dot_product_attention(*(torch.from_numpy(a).double() for a in (q, k, v, mask)))
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
