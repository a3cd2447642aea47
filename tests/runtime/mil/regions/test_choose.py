"""Which steps go to onnxruntime, and that nobody can tell but by the time it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb, normal, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError, UsageError
from satchel.runtime.mil import regions
from satchel.runtime.mil.program import Program
from satchel.runtime.mil.regions import choose

SIDE = 4
STATES = {"s0": ((SIDE, SIDE), "float16"), "s1": ((SIDE, SIDE), "float16")}
INPUT = {"x": ((SIDE, SIDE), "float16")}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hands over whatever can be handed over."""
    monkeypatch.setattr(choose, "WORTH", 0)


def ops(program: Program, threads: int = 1) -> list[str]:
    return [s.op for s in program.executable(threads=threads).steps]


class Recorder:
    """A random program over two states, of steps that can be handed over and steps that cannot."""

    def __init__(self, x: Any, states: list[Any], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.values, self.states = [x], states
        self.weight = (normal((SIDE, SIDE), seed) / 2).astype(np.float16)

    def build(self) -> list[Any]:
        """Every value is an output, and cannot be let go too early, or only some are."""
        for _ in range(int(self.random.integers(5, 25))):
            self.values.append(self._value())
        return [v for i, v in enumerate(self.values) if i and (self.random.random() < 0.3 or i == len(self.values) - 1)]

    def _value(self) -> Any:
        x, y = (self.values[max(0, len(self.values) - 1 - int(self.random.integers(4)))] for _ in range(2))
        state = self.states[int(self.random.integers(2))]
        row = mb.slice_by_index(x=y, begin=[2, 0], end=[3, SIDE])
        kinds: list[Callable[[], Any]] = [
            lambda: mb.linear(x=x, weight=self.weight),
            lambda: mb.tanh(x=mb.add(x=x, y=y)),
            lambda: mb.mul(x=x, y=np.float16(0.5)),
            lambda: mb.transpose(x=x, perm=[1, 0]),
            lambda: mb.softmax(x=x, axis=0),
            lambda: mb.reshape(x=mb.reshape(x=x, shape=[1, SIDE, SIDE]), shape=[SIDE, SIDE]),
            lambda: mb.reverse(x=x, axes=[0]),
            lambda: mb.mul(x=mb.cumsum(x=x, axis=1), y=np.float16(0.25)),
            lambda: mb.read_state(input=state),
            lambda: _row(x, row, 1),
            lambda: mb.coreml_update_state(state=state, value=x),
            lambda: mb.coreml_update_state(state=state, value=_row(mb.read_state(input=state), row, 0)),
        ]
        return kinds[int(self.random.integers(len(kinds)))]()


def _row(x: Any, row: Any, at: int) -> Any:
    return mb.slice_update(x=x, update=row, begin=[at, 0], end=[at + 1, SIDE])


@pytest.mark.usefixtures("eager")
def test_random_programs_give_the_same_with_and_without_onnxruntime(tmp_path: Path) -> None:
    handed_over = 0
    for seed in range(60):
        path = save(tmp_path, lambda x, s0, s1: Recorder(x, [s0, s1], seed).build(), INPUT, STATES, name=str(seed))  # noqa: B023
        auto, plain = mil.load(path, threads=1), mil.load(path, kernels="numpy")
        handed_over += ops(auto).count("onnxruntime")
        states, results = (auto.make_state(), plain.make_state()), []
        for call in range(3):
            x = normal((SIDE, SIDE), call)
            results.append([p.run({"x": x}, state=s) for p, s in zip((auto, plain), states, strict=True)])
            for name, array in states[1].arrays.items():
                np.testing.assert_allclose(states[0].arrays[name], array, rtol=1e-5, atol=1e-5)
        for found, want in results:  # looked at after later calls: nothing is overwritten
            for name, value in want.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=str(seed))
    assert handed_over > 75


@pytest.mark.usefixtures("eager")
def test_a_cache_is_read_without_a_copy_and_written_in_place(tmp_path: Path) -> None:
    w = normal((SIDE, SIDE), 1).astype(np.float16)

    def build(x: Any, s0: Any) -> Any:
        old = mb.read_state(input=s0)
        seen = mb.slice_by_index(x=old, begin=[0, 0], end=[2, SIDE])
        y = mb.matmul(x=mb.linear(x=x, weight=w), y=seen, transpose_y=True)
        row = mb.slice_by_index(x=mb.relu(x=mb.linear(x=x, weight=w)), begin=[0, 0], end=[1, SIDE])
        mb.coreml_update_state(state=s0, value=mb.slice_update(x=old, update=row, begin=[0, 0], end=[1, SIDE]))
        return mb.exp(x=y, name="y")

    program = mil.load(save(tmp_path, build, INPUT, {"s0": STATES["s0"]}), threads=1)
    assert ops(program) == ["read_state", "slice_by_index", "onnxruntime", "slice_update", "write_state"]
    state, x = program.make_state(), normal((SIDE, SIDE))
    array = state.arrays["s0"]
    np.testing.assert_array_equal(program.run({"x": x}, state=state)["y"], np.ones((SIDE, 2)))
    assert state.arrays["s0"] is array
    np.testing.assert_allclose(array[0], np.maximum(x[0] @ w.astype(np.float32).T, 0), rtol=1e-5, atol=1e-6)


def big(x: Any) -> Any:
    """Two products worth a session, and an op between them that stays with numpy."""
    w = (normal((2048, 2048)) / 50).astype(np.float16)
    return mb.linear(x=mb.cumsum(x=mb.linear(x=x, weight=w), axis=1), weight=w, name="y")


def test_only_what_is_worth_it_is_handed_over(tmp_path: Path) -> None:
    x = {"x": ((1, 2048), "float16")}
    program = mil.load(save(tmp_path, big, x), threads=1)
    assert ops(program) == ["onnxruntime", "cumsum", "onnxruntime"]
    small = mil.load(save(tmp_path, lambda x: mb.linear(x=x, weight=normal((8, 2048))), {"x": x["x"]}, name="small"))
    assert ops(small) == ["linear"]
    weights = [v for v in program.executable(threads=1).template if isinstance(v, np.ndarray) and v.size > 1e6]
    sessions = [s.kernel for s in program.executable(threads=1).steps if s.op == "onnxruntime"]
    pointers = {v.data_ptr() for s in sessions for v in s._fixed.values()}
    assert pointers == {w.ctypes.data for w in weights}  # no copy of a weight


def test_fp16_observers_and_numpy_kernels_see_every_op(tmp_path: Path) -> None:
    path = save(tmp_path, big, {"x": ((1, 2048), "float16")})
    x = {"x": normal((1, 2048))}
    seen: list[str] = []
    program = mil.load(path, threads=1)
    found = program.run(x, observe=lambda step, inputs, results: seen.append(step.op))
    assert seen == ["linear", "cumsum", "linear"]
    exact = {"rtol": 1e-5, "atol": float(np.abs(found["y"]).max()) * 1e-6}  # sums of terms much larger than themselves
    np.testing.assert_allclose(program.run(x)["y"], found["y"], **exact)
    plain = mil.load(path, kernels="numpy")
    np.testing.assert_array_equal(plain.run(x)["y"], found["y"])
    assert {key[2] for key in plain._compiled} == {0} and {key[2] for key in program._compiled} == {0, 1}
    program.run(x, precision="fp16")
    assert ("main", "fp16", 0) in program._compiled and ("main", "fp16", 1) not in program._compiled


def test_constants_that_are_not_kept_stay_with_numpy(tmp_path: Path) -> None:
    path = save(tmp_path, big, {"x": ((1, 2048), "float16")})
    assert ops(mil.load(path, max_memory=1 << 20, threads=1)) == ["const", "linear", "cumsum", "const", "linear"]


@pytest.mark.usefixtures("eager")
def test_errors_name_the_op_as_numpy_does(tmp_path: Path) -> None:
    def build(x: Any, i: Any) -> Any:
        y = mb.linear(x=x, weight=normal((SIDE, SIDE)).astype(np.float16))
        return mb.relu(x=mb.gather(x=y, indices=i, axis=0, name="pick"))

    program = mil.load(save(tmp_path, build, {**INPUT, "i": ((2,), "int32")}), threads=1)
    assert ops(program) == ["onnxruntime"]
    with pytest.raises(FormatError, match=r"gather 'pick': IndexError"):
        program.run({"x": normal((SIDE, SIDE)), "i": np.array([0, 99])})
    assert program.run({"x": normal((SIDE, SIDE)), "i": np.array([0, 3])})


def test_without_onnxruntime_numpy_does_it_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regions.session.importlib.util, "find_spec", lambda name: None)
    regions.available.cache_clear()
    try:
        program = mil.load(save(tmp_path, big, {"x": ((1, 2048), "float16")}))
        program.run({"x": normal((1, 2048))})
        assert [key[2] for key in program._compiled] == [0]
    finally:
        regions.available.cache_clear()


def test_threads_come_from_the_caller_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3,1")
    assert regions.threads_for("auto") == 3
    assert regions.threads_for("auto", 2) == 2
    assert regions.threads_for("numpy", 2) == 0
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert regions.threads_for("auto") >= 1
    with pytest.raises(UsageError, match=r"kernels.*numba"):
        regions.threads_for("numba")
    with pytest.raises(UsageError, match=r"threads.*at least 1"):
        regions.threads_for("auto", 0)
