"""How programs run: states, functions, sharing of memory, limits, inputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.mil import mil_pb2 as pb
from satchel.runtime.mil.dtypes import BY_NAME

SIDE = 3
STATES = {"s0": ((SIDE, SIDE), "float16"), "s1": ((SIDE, SIDE), "float16")}
INPUT = {"x": ((SIDE, SIDE), "float16")}
ROW = {"begin": [1, 0], "end": [2, SIDE]}


def append(x: mb.Var, s0: mb.Var) -> mb.Var:
    """Writes the first row of x into row 1 of the state, as a cache is written."""
    old = mb.read_state(input=s0)
    new = mb.slice_update(x=old, update=mb.slice_by_index(x=x, begin=[0, 0], end=[1, SIDE]), **ROW)
    return mb.mul(x=mb.coreml_update_state(state=s0, value=new), y=np.float16(2))


def test_a_cache_is_written_in_place(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, append, INPUT, {"s0": STATES["s0"]}))
    assert [(s.name, s.shape, s.dtype) for s in program.states] == [("s0", (SIDE, SIDE), "float16")]
    state, other = program.make_state(), program.make_state()
    array, x = state.arrays["s0"], normal((SIDE, SIDE))
    (name,) = (s.name for s in program.outputs)
    found = program.run({"x": x}, state=state)[name]
    assert state.arrays["s0"] is array
    np.testing.assert_array_equal(array, [np.zeros(SIDE), x[0], np.zeros(SIDE)])
    np.testing.assert_array_equal(found, array * 2)
    assert not other.arrays["s0"].any()
    kept = state.copy()
    program.run({"x": -x}, state=state)
    np.testing.assert_array_equal(kept.arrays["s0"][1], x[0])


class Recorder:
    """Builds a random program, and remembers it as functions on copies of numpy arrays: the oracle."""

    def __init__(self, x: Any, s0: Any, s1: Any, choose: Callable[[int], int]) -> None:
        self.states, self.choose = [s0, s1], choose
        self.values = [x]
        self.steps: list[Callable[[list[np.ndarray], list[np.ndarray]], np.ndarray]] = []

    def add(self) -> None:
        """One random op; the last values are used most, so that some are dead and may be overwritten."""
        i, j, s = self._recent(), self._recent(), self.choose(2)
        x, y = self.values[i], self.values[j]
        kinds: list[Callable[[], tuple[Any, Any]]] = [
            lambda: (mb.read_state(input=self.states[s]), lambda v, a: a[s].copy()),
            lambda: (mb.transpose(x=x, perm=[1, 0]), lambda v, a: v[i].T.copy()),
            lambda: (mb.mul(x=mb.add(x=x, y=y), y=np.float16(0.5)), lambda v, a: (v[i] + v[j]) * np.float32(0.5)),
            lambda: (self._updated(x, y), lambda v, a: np.stack([v[i][0], v[j][2], v[i][2]])),
            lambda: (mb.coreml_update_state(state=self.states[s], value=x), lambda v, a: _write(a, s, v[i])),
            lambda: (mb.const(val=CONSTANT), lambda v, a: CONSTANT.astype(np.float32)),
        ]
        made, step = kinds[[0, 0, 1, 2, 3, 3, 3, 4, 4, 4, 5][self.choose(11)]]()
        self.values.append(made)
        self.steps.append(step)

    def _recent(self) -> int:
        return max(0, len(self.values) - 1 - self.choose(3))

    def _updated(self, x: Any, y: Any) -> Any:
        row = mb.slice_by_index(x=y, begin=[2, 0], end=[3, SIDE])
        return mb.slice_update(x=x, update=row, **ROW)

    def oracle(self, x: np.ndarray, states: list[np.ndarray]) -> list[np.ndarray]:
        """Every value of the program; states are updated."""
        values = [x.copy()]
        for step in self.steps:
            values.append(step(values, states).copy())
        return values


CONSTANT = normal((SIDE, SIDE), 9).astype(np.float16)


def _write(states: list[np.ndarray], which: int, value: np.ndarray) -> np.ndarray:
    states[which] = value.copy()
    return value


def test_random_programs_never_see_memory_change(tmp_path: Path) -> None:
    for seed in range(400):
        compare_with_oracle(tmp_path / str(seed), seed)


def compare_with_oracle(folder: Path, seed: int) -> None:
    """Runs a random program three times, and the oracle beside it."""
    random = np.random.default_rng(seed)
    recorders: list[Recorder] = []
    shown: list[int] = []

    def build(x: mb.Var, s0: mb.Var, s1: mb.Var) -> list[mb.Var]:
        recorder = Recorder(x, s0, s1, lambda n: int(random.integers(n)))
        for _ in range(random.integers(4, 16)):
            recorder.add()
        recorders.append(recorder)
        shown.extend(i for i in range(1, len(recorder.values)) if random.random() < 0.3 or i == 1)
        return [recorder.values[i] for i in shown]

    program = mil.load(save(folder, build, INPUT, STATES))
    state, states = program.make_state(), [np.zeros((SIDE, SIDE), np.float32)] * 2
    names, seen = [s.name for s in program.outputs], []
    for call in range(3):
        x = normal((SIDE, SIDE), call)
        kept = x.copy()
        found = program.run({"x": x}, state=state)
        want = recorders[0].oracle(kept, states)
        np.testing.assert_array_equal(x, kept)
        seen.append((found, [want[i] for i in shown]))
        for i, wanted in enumerate(states):
            np.testing.assert_array_equal(state.arrays.get(f"s{i}", wanted), wanted)
    for found, want in seen:  # looked at after later calls: outputs belong to the caller
        for name, value in zip(names, want, strict=True):
            np.testing.assert_array_equal(found[name], value)


def test_two_states_with_the_same_content_stay_apart(tmp_path: Path) -> None:
    def build(x: mb.Var, s0: mb.Var, s1: mb.Var) -> mb.Var:
        row = mb.slice_by_index(x=x, begin=[0, 0], end=[1, SIDE])
        written = mb.coreml_update_state(state=s0, value=mb.slice_update(x=mb.read_state(input=s0), update=row, **ROW))
        untouched = mb.mul(x=mb.read_state(input=s1), y=np.float16(1), name="untouched")
        same = mb.mul(x=written, y=np.float16(0.5))
        mb.coreml_update_state(state=s0, value=same)
        mb.coreml_update_state(state=s1, value=same)
        return untouched

    program = mil.load(save(tmp_path, build, INPUT, STATES))
    state = program.make_state()
    program.run({"x": np.ones((SIDE, SIDE))}, state=state)
    found = program.run({"x": np.full((SIDE, SIDE), 7)}, state=state)
    np.testing.assert_array_equal(found["untouched"][1], 0.5)


def test_results_of_one_op_may_share_memory(tmp_path: Path) -> None:
    """The last state of a recurrent layer lies in the sequence: writing into it, or keeping it, must not change it."""
    w, h = normal((SIDE, SIDE), 1).astype(np.float16), normal((1, SIDE), 2).astype(np.float16)

    def build(x: mb.Var, s0: mb.Var) -> list[mb.Var]:
        layer = mb.rnn(x=x, initial_h=h, weight_ih=w, weight_hh=w, output_sequence=True)
        written = mb.slice_update(x=layer[1], update=np.float16([[7]]), begin=[0, 0], end=[1, 1])
        again = mb.rnn(x=x, initial_h=h, weight_ih=w, weight_hh=w, output_sequence=True)
        mb.coreml_update_state(state=s0, value=again[1])
        return [mb.identity(x=layer[0], name="y"), mb.identity(x=written, name="w"), mb.identity(x=again[0], name="z")]

    program = mil.load(save(tmp_path, build, {"x": ((2, 1, SIDE), "float16")}, {"s0": ((1, SIDE), "float16")}))
    state, x = program.make_state(), normal((2, 1, SIDE))
    found = program.run({"x": x}, state=state)
    w, h = w.astype(np.float32), h.astype(np.float32)
    hidden = [np.tanh(x[0] @ w.T + h @ w.T)]
    hidden.append(np.tanh(x[1] @ w.T + hidden[0] @ w.T))
    np.testing.assert_allclose(found["y"], hidden, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["w"][0], [7, *found["y"][1, 0, 1:]])
    np.testing.assert_array_equal(state.arrays["s0"], found["z"][1])
    assert not np.may_share_memory(state.arrays["s0"], found["z"])


def retyped(path: Path, dtype: str) -> Path:
    """Makes every tensor of a package one of `dtype`: coremltools exports states in fp16 only."""
    file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = pb.Model.FromString(file.read_bytes())
    for function in model.mlProgram.functions.values():
        (block,) = function.blockSpecializations.values()
        for named in [*function.inputs, *(o for op in block.operations for o in op.outputs)]:
            state = named.type.WhichOneof("type") == "stateType"
            (named.type.stateType.wrappedType if state else named.type).tensorType.dataType = BY_NAME[dtype].proto
    file.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "int32"])
def test_states_of_every_type(tmp_path: Path, dtype: str) -> None:
    """Two functions that share a state, and one state that only the second has."""

    def count(x: mb.Var, s0: mb.Var, s1: mb.Var) -> mb.Var:
        return mb.coreml_update_state(state=s0, value=mb.add(x=mb.read_state(input=s0), y=x))

    def both(x: mb.Var, s0: mb.Var, s1: mb.Var) -> mb.Var:
        return mb.coreml_update_state(state=s1, value=mb.add(x=mb.read_state(input=s0), y=x))

    states = {"s0": ((2,), "float16"), "s1": ((2,), "float16")}
    path = save(tmp_path, {"main": count, "both": both}, {"x": ((2,), "float16")}, states)
    program = mil.load(retyped(path, dtype))
    state = program.make_state()
    for _ in range(3):
        program.run({"x": [1, 2]}, state=state)
    (found,) = program.run({"x": [1, 2]}, "both", state).values()
    assert found.dtype == ("int32" if dtype == "int32" else "float32")
    assert (state.arrays["s0"].tolist(), state.arrays["s1"].tolist()) == ([3, 6], [4, 8])
    state.arrays["s1"] = np.zeros(3)
    with pytest.raises(UsageError, match="shape of state s1"):
        program.run({"x": [1, 2]}, "both", state)


def test_functions_share_constants_and_states(tmp_path: Path) -> None:
    w = normal((64, SIDE))

    def step(scale: float) -> Callable[..., Any]:
        def body(x: mb.Var, s0: mb.Var) -> mb.Var:
            return mb.linear(x=mb.mul(x=append(x, s0), y=np.float16(scale)), weight=mb.const(val=w.astype(np.float16)))

        return body

    program = mil.load(save(tmp_path, {"main": step(1), "twice": step(2)}, INPUT, {"s0": STATES["s0"]}))
    assert program.functions == ("main", "twice")
    state, x = program.make_state(), normal((SIDE, SIDE))
    (one,) = program.run({"x": x}, state=state).values()
    (two,) = program.run({"x": x}, "twice", state).values()
    np.testing.assert_allclose(two, one * 2, rtol=1e-6)
    constants = [
        next(v for v in program.executable(f).template if isinstance(v, np.ndarray) and v.shape == w.shape)
        for f in program.functions
    ]
    assert constants[0].nbytes == w.size * 4
    with pytest.raises(FormatError, match=r"function.*\['main', 'twice'\]"):
        program.run({"x": x}, "thrice", state)


def test_a_memory_limit_changes_nothing_but_what_is_kept(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    lut = normal((1, 1, 256, 1)).astype(np.float16)

    def build(x: mb.Var) -> mb.Var:
        weights = mb.constexpr_lut_to_dense(indices=indices, lut=lut)
        twice = mb.linear(x=mb.linear(x=x, weight=weights), weight=weights)
        return mb.linear(x=twice, weight=normal((8, 64), 3).astype(np.float16), name="y")

    path = save(tmp_path, build, {"x": ((2, 64), "float16")})
    x = normal((2, 64))
    free, tight = mil.load(path), mil.load(path, max_memory=4096)
    np.testing.assert_array_equal(tight.run({"x": x})["y"], free.run({"x": x})["y"])
    steps = tight.executable().steps
    assert [s.op for s in steps] == ["const", "linear", "linear", "linear"]  # loaded once for two uses, and let go
    assert len(steps[2].free) == 2
    assert sum(v.nbytes for v in tight.executable().template if isinstance(v, np.ndarray)) <= 4096
    assert "const" not in [s.op for s in free.executable().steps]


def test_values_are_let_go_after_their_last_use(tmp_path: Path) -> None:
    def build(x: mb.Var) -> mb.Var:
        for _ in range(5):
            x = mb.relu(x=mb.mul(x=x, y=np.float32(2)))
        return x

    steps = mil.load(save(tmp_path, build, {"x": ((4,), "float32")})).executable().steps
    assert [len(s.free) for s in steps] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_inputs_are_checked(tmp_path: Path) -> None:
    places = {"x": ((2, 3), "float16"), "i": ((2,), "int32")}
    program = mil.load(save(tmp_path, lambda x, i: mb.gather(x=x, indices=i, axis=0, name="y"), places))
    x, i = normal((2, 3)), np.array([1, 0])
    np.testing.assert_array_equal(program.run({"x": x, "i": i})["y"], x[::-1])
    wrong = [
        ({"x": x}, "inputs of main"),
        ({"x": x, "i": i, "z": x}, "inputs of main"),
        ({"x": x.T, "i": i}, "shape of input x"),
        ({"x": x, "i": i + 0.5}, "type of input i"),
        ({"x": np.array([["a"] * 3] * 2), "i": i}, "type of input x"),
    ]
    for given_inputs, message in wrong:
        with pytest.raises(UsageError, match=message):
            program.run(given_inputs)
    with pytest.raises(FormatError, match=r"gather 'y' in main.*IndexError"):
        program.run({"x": x, "i": i + 9})


def test_states_must_be_given(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, append, INPUT, {"s0": STATES["s0"]}))
    with pytest.raises(UsageError, match=r"states of main.*make_state"):
        program.run({"x": normal((SIDE, SIDE))})


def test_outputs_in_fp16_are_fp16(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, lambda x: mb.mul(x=x, y=x, name="y"), INPUT))
    x = normal((SIDE, SIDE))
    half = x.astype(np.float16)
    np.testing.assert_array_equal(program.run({"x": x})["y"], x * x)
    found = program.run({"x": x}, precision="fp16")["y"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, half * half)
