"""Recurrent layers: x is [sequence, batch, features], a state [batch, hidden].

Where `direction` is "reverse" the sequence is read from its end, and the outputs stay in the order in which they were
made; of a bidirectional layer the second half of the hidden axis reads backwards and is put back in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from satchel.runtime.mil.ops.activation import relu, sigmoid
from satchel.runtime.mil.ops.base import Array, Op
from satchel.runtime.mil.ops.movement import identity

Activation = Callable[[Array], Array]


def hard_sigmoid(x: Array) -> Array:
    """0.2 x + 0.5 held between 0 and 1."""
    return np.clip(x * np.float32(0.2) + np.float32(0.5), np.float32(0), np.float32(1))


# A layer cannot set the two factors of a scaled tanh; Core ML takes both as 1.
ACTIVATIONS: dict[str, Activation] = {
    "hard_sigmoid": hard_sigmoid,
    "linear": identity,
    "relu": relu,
    "scaled_tanh": np.tanh,
    "sigmoid": sigmoid,
    "sigmoid_hard": hard_sigmoid,
    "tanh": np.tanh,
}


def _activation(name: str) -> Activation:
    if name.lower() not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is none of {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]


def _directed(x: Array, direction: str) -> Array:
    """X in the order in which it is read."""
    if direction not in ("forward", "reverse"):
        raise ValueError(f"direction {direction!r} is neither 'forward' nor 'reverse'")
    return x[::-1] if direction == "reverse" else x


def _projected(x: Array, weight: Array, bias: Array | None) -> Array:
    """The part of all gates that the sequence alone decides: [sequence, batch, gates * hidden]."""
    y = np.dot(np.ascontiguousarray(x).reshape(-1, x.shape[-1]), weight.T)
    y = y if bias is None else y + bias
    return y.reshape((*x.shape[:2], weight.shape[0]))


def _outputs(sequence: Array, last: Array, whole: bool) -> Array:
    return sequence if whole else last[np.newaxis]


def rnn(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> tuple[Array, Array]:
    """h = activation(W x + R h + b); weights [hidden, features] and [hidden, hidden]."""
    act, h = _activation(activation), initial_h
    inputs = _projected(_directed(x, direction), weight_ih, bias)
    sequence = np.empty(inputs.shape, np.float32)
    for t, part in enumerate(inputs):
        h = act(part + np.dot(h, weight_hh.T))
        sequence[t] = h
    return _outputs(sequence, h, output_sequence), h


def gru(
    x: Array,
    initial_h: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    input_bias: Array | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
) -> tuple[Array, Array]:
    """Gated recurrent unit; rows of the weights are [reset, output, update] gates.

    r = f(W x + R h + b), z likewise, h = (1 - z) o + z h, where the output gate is o = g(W x + R (r h) + b), or, with
    `reset_after`, o = g(W x + input_bias + r (R h + b)).
    """
    size = weight_hh.shape[1]
    gate, act, h = _activation(recurrent_activation), _activation(activation), initial_h
    inputs = _projected(_directed(x, direction), weight_ih, input_bias)
    b = np.zeros(3 * size, np.float32) if bias is None else bias
    reset_update = np.r_[0:size, 2 * size : 3 * size]
    gates, output = weight_hh[reset_update].T, weight_hh[size : 2 * size].T
    gates_bias, output_bias = b[reset_update], b[size : 2 * size]
    sequence = np.empty((*inputs.shape[:2], size), np.float32)
    for t, part in enumerate(inputs):
        both = gate(part[:, reset_update] + np.dot(h, gates) + gates_bias)
        reset, update = both[:, :size], both[:, size:]
        if reset_after:
            candidate = reset * (np.dot(h, output) + output_bias)
        else:
            candidate = np.dot(reset * h, output) + output_bias
        o = act(part[:, size : 2 * size] + candidate)
        h = (1 - update) * o + update * h
        sequence[t] = h
    return _outputs(sequence, h, output_sequence), h


@dataclass(frozen=True)
class _Cell:
    """What both directions of an LSTM have in common: activations f, g and h, and the bound of the cell state."""

    gate: Activation
    cell: Activation
    output: Activation
    clip: float | None


def _lstm(
    cell: _Cell,
    x: Array,
    h: Array,
    c: Array,
    weights: tuple[Array, Array],
    bias: Array | None,
    peephole: Array | None,
) -> tuple[Array, Array, Array]:
    """One direction: (h of every step, the last h, the last c)."""
    size = weights[1].shape[1]
    inputs, recurrent = _projected(x, weights[0], bias), weights[1].T
    sequence = np.empty((*inputs.shape[:2], size), np.float32)
    for t, part in enumerate(inputs):
        gates = part + np.dot(h, recurrent)
        if peephole is not None:
            gates[:, : 2 * size] += np.tile(c, 2) * peephole[: 2 * size]
        input_forget = cell.gate(gates[:, : 2 * size])
        c = input_forget[:, size:] * c + input_forget[:, :size] * cell.cell(gates[:, 3 * size :])
        if cell.clip is not None:
            c = np.clip(c, np.float32(-cell.clip), np.float32(cell.clip))
        if peephole is not None:
            gates[:, 2 * size : 3 * size] += c * peephole[2 * size :]
        h = cell.gate(gates[:, 2 * size : 3 * size]) * cell.output(c)
        sequence[t] = h
    return sequence, h, c


def lstm(
    x: Array,
    initial_h: Array,
    initial_c: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias: Array | None = None,
    peephole: Array | None = None,
    weight_ih_back: Array | None = None,
    weight_hh_back: Array | None = None,
    bias_back: Array | None = None,
    peephole_back: Array | None = None,
    *,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: float | None = None,
) -> tuple[Array, Array, Array]:
    """Long short-term memory; rows of the weights are [input, forget, output, cell] gates.

    i = f(W x + R h + p c + b), the forget gate likewise, c = clip(forget c + i g(W x + R h + b)), o as i but with the
    new c, h = o h(c). The peephole p is [input, forget, output].
    """
    cell = _Cell(_activation(recurrent_activation), _activation(cell_activation), _activation(activation), clip)
    if direction != "bidirectional":
        x = _directed(x, direction)
        sequence, h, c = _lstm(cell, x, initial_h, initial_c, (weight_ih, weight_hh), bias, peephole)
        return _outputs(sequence, h, output_sequence), h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise ValueError("a bidirectional lstm without weights for its second direction")
    size = weight_hh.shape[1]
    first = _lstm(
        cell, x, initial_h[:, :size], initial_c[:, :size], (weight_ih, weight_hh), bias, peephole
    )  # fmt: skip
    sequence, h, c = _lstm(
        cell, x[::-1], initial_h[:, size:], initial_c[:, size:], (weight_ih_back, weight_hh_back), bias_back,
        peephole_back,
    )  # fmt: skip
    both = [np.concatenate(pair, axis=-1) for pair in zip(first, (sequence[::-1], h, c), strict=True)]
    return _outputs(both[0], both[1], output_sequence), both[1], both[2]


OPS: dict[str, Op] = {
    "gru": Op(gru),
    "lstm": Op(lstm),
    "rnn": Op(rnn),
}
