"""Recurrent layers, against onnxruntime (every activation, direction and peephole) and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mil_programs import ct, mb, normal, outputs
from onnx import TensorProto, helper

from satchel.runtime.errors import FormatError

# Core ML's name -> ONNX's name and the factors that it takes.
ACTIVATIONS = {
    "tanh": ("Tanh",), "sigmoid": ("Sigmoid",), "relu": ("Relu",), "hard_sigmoid": ("HardSigmoid", 0.2, 0.5),
    "scaled_tanh": ("ScaledTanh", 1.0, 1.0), "linear": ("Affine", 1.0, 0.0),
}  # fmt: skip
NAMES = st.sampled_from(sorted(ACTIVATIONS))
SIZES = st.tuples(*(st.integers(1, 4),) * 4)  # steps, batch, features, hidden
# A sum of a few products of numbers near 1, passed on over at most four steps.
EXPLODES = 1e3  # with activations without bounds
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-6}


def rows(array: np.ndarray, order: list[int], gates: int) -> np.ndarray:
    """The blocks of a gate each, in another order."""
    return np.concatenate([np.split(array, gates)[i] for i in order])


def run_onnx(
    op: str, inputs: list[np.ndarray | None], activations: list[str], hidden: int, **attributes: Any
) -> list[np.ndarray]:
    """[sequence of h, last h, (last c)] of an ONNX recurrent op."""
    given_names = [f"i{k}" if v is not None else "" for k, v in enumerate(inputs)]
    names = ["y", "h", "c"][: 3 if op == "LSTM" else 2]
    kinds = [ACTIVATIONS[a] for a in activations]
    node = helper.make_node(
        op, given_names, names, hidden_size=hidden, activations=[k[0] for k in kinds],
        activation_alpha=[k[1] for k in kinds if k[1:]] or None, activation_beta=[k[2] for k in kinds if k[1:]] or None,
        **attributes,
    )  # fmt: skip
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, floats, v.shape) for n, v in zip(given_names, inputs, strict=True) if n],
        [helper.make_tensor_value_info(n, floats, None) for n in names],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, {n: v for n, v in zip(given_names, inputs, strict=True) if n}))


@settings(max_examples=15, deadline=None)
@given(SIZES, NAMES, st.booleans(), st.booleans(), st.booleans())
def test_rnn(sizes: tuple[int, ...], activation: str, reverse: bool, bias: bool, whole: bool) -> None:
    steps, batch, features, hidden = sizes
    x, h = normal((steps, batch, features), 1), normal((batch, hidden), 2)
    w, r = normal((hidden, features), 3, 0.5), normal((hidden, hidden), 4, 0.5)
    b = normal((hidden,), 5) if bias else None
    found, last = outputs(
        lambda x, h: mb.rnn(
            x=x, initial_h=h, weight_ih=w, weight_hh=r, bias=b, direction="reverse" if reverse else "forward",
            output_sequence=whole, activation=activation,
        ),
        {"x": x, "h": h},
    )  # fmt: skip
    onnx_bias = None if b is None else np.concatenate([b, 0 * b])[None]
    read = np.ascontiguousarray(x[::-1] if reverse else x)
    y, want_last = run_onnx("RNN", [read, w[None], r[None], onnx_bias, None, h[None]], [activation], hidden)
    np.testing.assert_allclose(last, want_last[0], **CLOSE)
    np.testing.assert_allclose(found, y[:, 0] if whole else want_last, **CLOSE)


@pytest.mark.parametrize("after", [None, False, True])
@pytest.mark.parametrize("bias", [False, True])
@settings(max_examples=12, deadline=None)
@given(SIZES, NAMES, NAMES, st.booleans(), st.booleans())
def test_gru(
    bias: bool, after: bool | None, sizes: tuple[int, ...], gate: str, act: str, reverse: bool, whole: bool
) -> None:
    steps, batch, features, hidden = sizes
    x, h = normal((steps, batch, features), 1), normal((batch, hidden), 2)
    w, r = normal((3 * hidden, features), 3, 0.5), normal((3 * hidden, hidden), 4, 0.5)
    b, input_bias = (normal((3 * hidden,), 5) if bias else None), (normal((3 * hidden,), 6) if bias and after else None)
    new = {} if after is None else {"reset_after": after, "input_bias": input_bias}
    found, last = outputs(
        lambda x, h: mb.gru(
            x=x, initial_h=h, weight_ih=w, weight_hh=r, bias=b, direction="reverse" if reverse else "forward",
            output_sequence=whole, recurrent_activation=gate, activation=act, **new,
        ),
        {"x": x, "h": h},
        target=ct.target.iOS16 if after is None else ct.target.iOS18,
    )  # fmt: skip
    order = [2, 0, 1]  # r o z -> z r h
    onnx_bias = None
    if b is not None:
        other = np.zeros_like(b) if input_bias is None else input_bias
        onnx_bias = np.concatenate([rows(other, order, 3), rows(b, order, 3)])[None]
    y, want_last = run_onnx(
        "GRU", [np.ascontiguousarray(x[::-1] if reverse else x), rows(w, order, 3)[None], rows(r, order, 3)[None],
                onnx_bias, None, h[None]],
        [gate, act], hidden, linear_before_reset=int(bool(after)),
    )  # fmt: skip
    # A linear or relu gate z may be far beyond 1, and (1 - z) o + z h then cancels.
    assume(np.abs(y).max() < EXPLODES)
    close = {"rtol": 1e-5, "atol": 2e-6 * (1 + float(np.abs(y).max())) ** 2}
    np.testing.assert_allclose(last, want_last[0], **close)
    np.testing.assert_allclose(found, y[:, 0] if whole else want_last, **close)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("peephole", [False, True])
@settings(max_examples=12, deadline=None)
@given(SIZES, st.tuples(NAMES, NAMES, NAMES), st.booleans(), st.booleans())
def test_lstm(
    peephole: bool, direction: str, sizes: tuple[int, ...], acts: tuple[str, ...], bias: bool, whole: bool
) -> None:
    steps, batch, features, hidden = sizes
    count = 2 if direction == "bidirectional" else 1
    x = normal((steps, batch, features), 1)
    h, c = normal((batch, count * hidden), 2), normal((batch, count * hidden), 3)
    w, r = normal((count, 4 * hidden, features), 4, 0.5), normal((count, 4 * hidden, hidden), 5, 0.5)
    b = normal((count, 4 * hidden), 6) if bias else [None] * count
    p = normal((count, 3 * hidden), 7, 0.5) if peephole else [None] * count
    weights = {"weight_ih": w, "weight_hh": r, "bias": b, "peephole": p}
    parts = {n + end: v[i] for i, end in enumerate(("", "_back")[:count]) for n, v in weights.items()}
    found, last_h, last_c = outputs(
        lambda x, h, c: mb.lstm(
            x=x, initial_h=h, initial_c=c, direction=direction, output_sequence=whole, recurrent_activation=acts[0],
            cell_activation=acts[1], activation=acts[2], **parts,
        ),
        {"x": x, "h": h, "c": c},
    )  # fmt: skip
    order = [0, 2, 1, 3]  # i f o z -> i o f c
    onnx_w, onnx_r = (np.stack([rows(v, order, 4) for v in pair]) for pair in (w, r))
    onnx_b = np.stack([np.r_[rows(v, order, 4), np.zeros(4 * hidden, np.float32)] for v in b]) if bias else None
    onnx_p = np.stack([rows(v, [0, 2, 1], 3) for v in p]) if peephole else None
    starts = [np.ascontiguousarray(v.reshape(batch, count, hidden).swapaxes(0, 1)) for v in (h, c)]
    read = np.ascontiguousarray(x[::-1] if direction == "reverse" else x)
    y, want_h, want_c = run_onnx(
        "LSTM", [read, onnx_w, onnx_r, onnx_b, None, *starts, onnx_p], list(acts) * count, hidden,
        direction="bidirectional" if count == 2 else "forward",
    )  # fmt: skip
    joined = [v.swapaxes(-3, -2).reshape(*v.shape[:-3], batch, count * hidden) for v in (y, want_h, want_c)]
    # A relu or a linear cell grows with every step; where it explodes, the last bits of each step do so with it.
    assume(np.abs(joined[2]).max() < EXPLODES)
    close = {"rtol": 1e-5, "atol": 2e-6 * max(1.0, float(np.abs(joined[2]).max()))}
    np.testing.assert_allclose(last_h, joined[1], **close)
    np.testing.assert_allclose(last_c, joined[2], **close)
    np.testing.assert_allclose(found, joined[0] if whole else joined[1][None], **close)


@pytest.mark.parametrize("clip", [0.1, 0.5])
def test_lstm_holds_the_cell_state_between_bounds(clip: float) -> None:
    torch.manual_seed(3)
    cell = torch.nn.LSTMCell(3, 4)
    x, h, c = normal((5, 2, 3), 1, 2), normal((2, 4), 2), np.clip(normal((2, 4), 3), -clip, clip)
    w, r = (v.detach().numpy() for v in (cell.weight_ih, cell.weight_hh))
    b = (cell.bias_ih + cell.bias_hh).detach().numpy()
    order = [0, 1, 3, 2]  # torch has i f g o
    found, _, last = outputs(
        lambda x, h, c: mb.lstm(
            x=x, initial_h=h, initial_c=c, weight_ih=rows(w, order, 4), weight_hh=rows(r, order, 4),
            bias=rows(b, order, 4), output_sequence=True, clip=np.float32(clip),
        ),
        {"x": x, "h": h, "c": c},
    )  # fmt: skip
    state = (torch.from_numpy(h), torch.from_numpy(c))
    for step, have in zip(torch.from_numpy(x), found, strict=True):
        free_h, free_c = cell(step, state)
        held = free_c.clamp(-clip, clip)
        state = (free_h / free_c.tanh() * held.tanh(), held)  # h is the output gate times tanh(c)
        np.testing.assert_allclose(have, state[0].detach(), rtol=1e-5, atol=1e-6)
    assert np.abs(last).max() == np.float32(clip)


def test_fp16_layers_and_unknown_names() -> None:
    x, h, w, r = normal((3, 2, 4), 1), normal((2, 5), 2), normal((5, 4), 3), normal((5, 5), 4)
    halves = [v.astype(np.float16) for v in (x, h, w, r)]
    build = lambda x, h: mb.rnn(x=x, initial_h=h, weight_ih=halves[2], weight_hh=halves[3])  # noqa: E731
    exact, rounded = (
        outputs(build, {"x": halves[0], "h": halves[1]}, precision=p)[1].astype(np.float32) for p in ("fp32", "fp16")
    )
    np.testing.assert_array_equal(rounded, exact.astype(np.float16).astype(np.float32))
    with pytest.raises(FormatError, match="swish"):
        outputs(lambda x, h: mb.rnn(x=x, initial_h=h, weight_ih=w, weight_hh=r, activation="swish"), {"x": x, "h": h})
