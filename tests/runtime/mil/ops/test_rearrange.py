"""Ops that rearrange, against torch and onnxruntime, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from onnx import TensorProto, helper

from satchel.runtime.errors import FormatError

SMALL = st.integers(1, 3)


def run_onnx(op: str, *inputs: np.ndarray, **attributes: Any) -> np.ndarray:
    """The output of one ONNX op."""
    names = [f"i{k}" for k in range(len(inputs))]
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in zip(names, inputs, strict=True)
    ]
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(op, names, ["y"], **attributes)], "g", infos, [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]


@settings(max_examples=20, deadline=None)
@given(SMALL, SMALL, SMALL, SMALL, SMALL)
def test_blocks_between_channels_and_space(n: int, c: int, h: int, w: int, block: int) -> None:
    deep, wide = normal((n, c * block**2, h, w), 1), normal((n, c, h * block, w * block), 2)

    def build(deep: mb.Var, wide: mb.Var) -> list[mb.Var]:
        return [
            mb.depth_to_space(x=deep, block_size=block),
            mb.space_to_depth(x=wide, block_size=block),
            mb.pixel_shuffle(x=deep, upscale_factor=block),
            mb.pixel_unshuffle(x=wide, downscale_factor=np.uint32(block)),
        ]

    wanted = [
        run_onnx("DepthToSpace", deep, blocksize=block, mode="DCR"),
        run_onnx("SpaceToDepth", wide, blocksize=block),
        F.pixel_shuffle(torch.from_numpy(deep), block).numpy(),
        F.pixel_unshuffle(torch.from_numpy(wide), block).numpy(),
    ]
    for found, want in zip(outputs(build, {"deep": deep, "wide": wide}), wanted, strict=True):
        np.testing.assert_array_equal(found, want)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*(SMALL,) * 6), st.data())
def test_blocks_between_batch_and_space(sizes: tuple[int, ...], data: st.DataObject) -> None:
    n, c, h, w, *block = sizes
    cut = data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4))
    height, width = h * block[0] - cut[0] - cut[1], w * block[1] - cut[2] - cut[3]
    assume(height > 0 and width > 0)
    x, many = normal((n, c, height, width), 1), normal((n * block[0] * block[1], c, h, w), 2)
    edges = [cut[:2], cut[2:]]
    to_batch, to_space = outputs(
        lambda x, many: [
            mb.space_to_batch(x=x, block_shape=block, paddings=edges),
            mb.batch_to_space(x=many, block_shape=block, crops=edges),
        ],
        {"x": x, "many": many},
    )
    # Patches of torch's unfold and fold: [n, c * places in the block, blocks].
    padded = F.pad(torch.from_numpy(x), [*cut[2:], *cut[:2]])
    patches = F.unfold(padded, block, stride=block).reshape(n, c, -1, h, w)
    np.testing.assert_array_equal(to_batch, patches.permute(2, 0, 1, 3, 4).reshape(many.shape))
    columns = torch.from_numpy(many).reshape(-1, n, c, h * w).permute(1, 2, 0, 3).reshape(n, -1, h * w)
    whole = F.fold(columns, (h * block[0], w * block[1]), block, stride=block)
    inside = whole[:, :, cut[0] : whole.shape[2] - cut[1], cut[2] : whole.shape[3] - cut[3]]
    np.testing.assert_array_equal(to_space, inside)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(3, 5), min_size=1, max_size=4), SMALL, SMALL, st.data())
def test_sliding_windows(shape: list[int], size: int, stride: int, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = normal(tuple(shape), 3)
    (found,) = outputs(lambda x: mb.sliding_windows(x=x, axis=axis, size=size, stride=stride), {"x": x})
    want = torch.from_numpy(x).unfold(axis, size, stride).movedim(-1, axis % len(shape) + 1)
    np.testing.assert_array_equal(found, want)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=2, max_size=4), st.data())
def test_reverse_sequence(shape: list[int], data: st.DataObject) -> None:
    seq, batch = data.draw(st.permutations(range(len(shape))).map(lambda p: p[:2]))
    counts = data.draw(st.lists(st.integers(0, shape[seq]), min_size=shape[batch], max_size=shape[batch]))
    signs = data.draw(st.sampled_from([0, len(shape)]))
    x, lengths = normal(tuple(shape), 4), np.array(counts, np.int32)
    (found,) = outputs(
        lambda x, lengths: mb.reverse_sequence(x=x, lengths=lengths, seq_axis=seq - signs, batch_axis=batch - signs),
        {"x": x, "lengths": lengths},
    )
    turned = np.ascontiguousarray(np.moveaxis(x, (batch, seq), (0, 1)))
    want = run_onnx("ReverseSequence", turned, lengths.astype(np.int64), batch_axis=0, time_axis=1)
    np.testing.assert_array_equal(found, np.moveaxis(want, (0, 1), (batch, seq)))


def test_sequences_longer_than_their_axis() -> None:
    inputs = {"x": normal((2, 3)), "lengths": np.array([1, 4], np.int32)}
    with pytest.raises(FormatError, match="reverse_sequence"):
        outputs(lambda x, lengths: mb.reverse_sequence(x=x, lengths=lengths, seq_axis=1, batch_axis=0), inputs)


@pytest.mark.parametrize("target", [ct.target.iOS16, ct.target.iOS18])
def test_reshape_like(target: ct.target) -> None:
    x, y, z = normal((6, 30)), normal((2, 3, 4)), np.zeros((1, 5, 6), np.int32)

    def build(x: mb.Var, y: mb.Var, z: mb.Var) -> list[mb.Var]:
        turned = mb.transpose(x=x, perm=[1, 0])
        return [
            mb.reshape_like(x=x, ref_tensors=(y, z), begins=(0, 1), ends=(2, 0), end_masks=(False, True)),
            mb.reshape_like(x=turned, ref_tensors=(x,), begins=(0,), ends=(2,), end_masks=(False,)),
        ]

    two, one = outputs(build, {"x": x, "y": y, "z": z}, target=target)
    np.testing.assert_array_equal(two, x.reshape(2, 3, 5, 6))
    np.testing.assert_array_equal(one, x.T.reshape(6, 30))
