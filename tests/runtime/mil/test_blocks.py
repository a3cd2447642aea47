"""Blocks inside ops: conditions and loops, what they capture, lists, states, and whose memory is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mil_programs import mb, normal, outputs, save

from satchel.runtime import mil
from satchel.runtime.errors import FormatError
from satchel.runtime.mil.ops.control import BLOCK_OPS
from satchel.runtime.mil.steps import Executable, walk

SIDE = 3
ROW = {"begin": [1, 0], "end": [2, SIDE]}
STATES = {"s0": ((SIDE, SIDE), "float16"), "s1": ((SIDE, SIDE), "float16")}
INPUT = {"x": ((SIDE, SIDE), "float16")}
CONSTANT = normal((SIDE, SIDE), 9).astype(np.float16)
Env = dict[int, Any]
Run = Callable[[Env, list[np.ndarray]], None]


def collatz(n: mb.Var) -> tuple[mb.Var, mb.Var]:
    """Steps until 1 is reached, and the highest number on the way; a condition in a loop, a constant in each block."""

    def body(n: mb.Var, steps: mb.Var, highest: mb.Var) -> tuple[mb.Var, ...]:
        even = mb.equal(x=mb.mod(x=n, y=2), y=0)
        n = mb.cond(
            pred=even,
            _true_fn=lambda: mb.floor_div(x=n, y=2),
            _false_fn=lambda: mb.add(x=mb.mul(x=n, y=3), y=1),
        )
        return n, mb.add(x=steps, y=1), mb.maximum(x=highest, y=n)

    start = mb.squeeze(x=n)
    _, steps, highest = mb.while_loop(
        _cond=lambda n, steps, highest: mb.greater(x=n, y=1), _body=body, loop_vars=(start, mb.mul(x=start, y=0), start)
    )
    return mb.expand_dims(x=steps, axes=[0]), mb.expand_dims(x=highest, axes=[0])


@pytest.mark.parametrize("start", [1, 6, 27])
def test_a_condition_in_a_loop(start: int) -> None:
    n, steps, highest = start, 0, start
    while n > 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps, highest = steps + 1, max(highest, n)
    found = outputs(collatz, {"n": np.array([start], np.int32)})
    assert [f.tolist() for f in found] == [[steps], [highest]]


def test_loops_in_loops_and_values_of_every_block_around(tmp_path: Path) -> None:
    """sum over i < n, j < i of x * w[j] + i, written as loops that use values of both blocks around them."""
    w = normal((8, SIDE), 1)

    def build(x: mb.Var, n: mb.Var) -> mb.Var:
        count, weights = mb.squeeze(x=n), mb.const(val=w)

        def outer(i: mb.Var, total: mb.Var) -> tuple[mb.Var, mb.Var]:
            shift = mb.cast(x=i, dtype="fp32")

            def inner(j: mb.Var, part: mb.Var) -> tuple[mb.Var, mb.Var]:
                term = mb.add(x=mb.mul(x=x, y=mb.gather(x=weights, indices=j, axis=0)), y=shift)
                return mb.add(x=j, y=1), mb.add(x=part, y=term)

            zero = mb.sub(x=i, y=i)
            _, inside = mb.while_loop(
                _cond=lambda j, part: mb.less(x=j, y=i), _body=inner, loop_vars=(zero, mb.mul(x=x, y=0.0))
            )
            return mb.add(x=i, y=1), mb.add(x=total, y=inside)

        first = mb.mul(x=count, y=0)
        return mb.while_loop(
            _cond=lambda i, total: mb.less(x=i, y=count), _body=outer, loop_vars=(first, mb.mul(x=x, y=0.0))
        )[1]

    program = mil.load(save(tmp_path, build, {"x": ((SIDE,), "float32"), "n": ((1,), "int32")}))
    x = normal((SIDE,))
    for n in (0, 1, 5):
        (found,) = program.run({"x": x, "n": [n]}).values()
        want = sum((x * w[j] + i for i in range(n) for j in range(i)), np.zeros(SIDE, np.float32))
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    assert kept_after(program.executable(), {"x": x, "n": [5]}) <= 2


def kept_after(executable: Executable, inputs: dict[str, Any]) -> int:
    """How many values of steps in blocks are still held when all is done."""
    from satchel.runtime.mil import interpreter

    frames: list[Any] = []
    kept = interpreter.Frame.__init__

    def remember(self: Any, *arguments: Any) -> None:
        kept(self, *arguments)
        frames.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter.Frame, "__init__", remember)
        interpreter.run(executable, inputs)
    inside = [o for s in walk(executable.steps) for b in s.blocks for t in b.steps for o in t.outputs]
    return sum(frames[0].values[o] is not None for o in inside)


class Recorder:
    """Builds a random program with blocks, and remembers it as functions on copies of arrays: the oracle.

    Attributes:
        values: what can be used where the recorder is; the last ones are used most.
        program: the oracle's steps of the block that is being built.
    """

    def __init__(self, x: Any, states: Sequence[Any], random: np.random.Generator) -> None:
        self.values, self.states, self.random = [(0, x)], states, random
        self.program: list[Run] = []
        self.count, self.depth = 1, 0

    def choose(self, n: int) -> int:
        return int(self.random.integers(n))

    def recent(self) -> tuple[int, Any]:
        return self.values[max(0, len(self.values) - 1 - self.choose(3))]

    def keep(self, made: Any, compute: Callable[[Env, list[np.ndarray]], np.ndarray]) -> None:
        """A new value, and how the oracle gets it."""
        place = self.count
        self.count += 1
        self.values.append((place, made))
        self.program.append(lambda env, states: env.__setitem__(place, compute(env, states).copy()))

    def add(self) -> None:
        """One random op."""
        (i, x), (j, y), s = self.recent(), self.recent(), self.choose(2)
        kind = [0, 0, 1, 2, 3, 3, 3, 4, 4, 5, 6, 6, 7, 7][self.choose(14 if self.depth < 2 else 10)]
        if kind == 0:
            self.keep(mb.read_state(input=self.states[s]), lambda env, states: states[s])
        elif kind == 1:
            self.keep(mb.transpose(x=x, perm=[1, 0]), lambda env, states: env[i].T)
        elif kind == 2:
            half = mb.mul(x=mb.add(x=x, y=y), y=np.float16(0.5))
            self.keep(half, lambda env, states: (env[i] + env[j]) * np.float32(0.5))
        elif kind == 3:
            self.keep(*self.update(i, x, j, y))
        elif kind == 4:
            self.keep(
                mb.coreml_update_state(state=self.states[s], value=x), lambda env, states: write(states, s, env[i])
            )
        elif kind == 5:
            constant = mb.identity(x=mb.const(val=CONSTANT))
            constant._sym_val = None  # or else the builder tells a loop's body from its first run
            self.keep(constant, lambda env, states: CONSTANT.astype(np.float32))
        elif kind == 6:
            self.add_cond(i, x)
        else:
            self.add_loop([self.recent() for _ in range(1 + self.choose(3))])

    def update(self, i: int, x: Any, j: int, y: Any) -> tuple[Any, Callable[[Env, list[np.ndarray]], np.ndarray]]:
        """A row of x becomes the mean of itself and one of y: done twice it gives something else."""
        rows = mb.slice_by_index(x=x, **ROW), mb.slice_by_index(x=y, begin=[2, 0], end=[3, SIDE])
        row = mb.mul(x=mb.add(x=rows[0], y=rows[1]), y=np.float16(0.5))

        def compute(env: Env, states: list[np.ndarray]) -> np.ndarray:
            return np.stack([env[i][0], (env[i][1] + env[j][2]) * np.float32(0.5), env[i][2]])

        return mb.slice_update(x=x, update=row, **ROW), compute

    def block(self, inputs: Sequence[Any], results: int) -> tuple[list[Any], list[int], list[int], list[Run]]:
        """(values to return, the oracle's places of them, places of the inputs, steps) of a random block."""
        values, program, self.values, self.program = self.values, self.program, list(self.values), []
        self.depth += 1
        places = list(range(self.count, self.count + len(inputs)))
        self.count += len(inputs)
        self.values += zip(places, inputs, strict=True)
        for _ in range(1 + self.choose(4)):
            self.add()
        chosen = [self.recent() for _ in range(results)]
        steps, self.values, self.program = self.program, values, program
        self.depth -= 1
        return [v for _, v in chosen], [p for p, _ in chosen], places, steps

    def add_cond(self, i: int, x: Any) -> None:
        results, made = 1 + self.choose(2), []

        def branch() -> list[Any]:
            values, *rest = self.block([], results)
            made.append(rest)
            return values

        positive = mb.greater(x=mb.reduce_sum(x=mb.cast(x=x, dtype="fp32"), axes=[0, 1]), y=0.0)
        found = mb.cond(pred=positive, _true_fn=branch, _false_fn=branch)
        branches, holder = made[-2:], self.count
        self.count += 1

        def run(env: Env, states: list[np.ndarray]) -> None:
            places, _, steps = branches[0 if env[i].sum(dtype=np.float32) > 0 else 1]
            for step in steps:
                step(env, states)
            env[holder] = [env[p] for p in places]

        self.program.append(run)
        self.spread(found, holder, results)

    def add_loop(self, initial: list[tuple[int, Any]]) -> None:
        rounds, made = 1 + self.choose(4), []

        def body(counter: Any, *variables: Any) -> list[Any]:
            values, *rest = self.block(variables, len(variables))
            made.append(rest)
            return [mb.add(x=counter, y=np.int32(1)), *values]

        zero = mb.reduce_sum(x=mb.mul(x=mb.cast(x=initial[0][1], dtype="int32"), y=0), axes=[0, 1], keep_dims=False)
        found = mb.while_loop(
            _cond=lambda counter, *_: mb.less(x=counter, y=np.int32(rounds)),
            _body=body,
            # The builder derives names of variables from these, the same for two loops that start with one value.
            loop_vars=(zero, *[mb.identity(x=v) for _, v in initial]),
        )
        (places, inputs, steps), holder = made[-1], self.count
        self.count += 1

        def run(env: Env, states: list[np.ndarray]) -> None:
            carried = [env[p] for p, _ in initial]
            for _ in range(rounds):
                env.update(zip(inputs, [c.copy() for c in carried], strict=True))
                for step in steps:
                    step(env, states)
                carried = [env[p] for p in places]
            env[holder] = carried

        self.program.append(run)
        self.spread(found[1:], holder, len(initial))

    def spread(self, found: Any, holder: int, count: int) -> None:
        for k, made in enumerate(found if isinstance(found, list | tuple) else [found]):
            self.keep(made, lambda env, states, k=k: env[holder][k])  # type: ignore[misc]
        assert count >= 1


def write(states: list[np.ndarray], which: int, value: np.ndarray) -> np.ndarray:
    states[which] = value.copy()
    return value


def test_random_programs_with_blocks_never_see_memory_change(tmp_path: Path) -> None:
    in_place = 0
    for seed in range(100):
        in_place += compare_with_oracle(tmp_path / str(seed), seed)
    assert in_place > 20  # the search is for wrong writes: there must be some


def compare_with_oracle(folder: Path, seed: int) -> int:
    """Runs a random program three times, and the oracle beside it; how many steps in blocks write in place."""
    random = np.random.default_rng(seed)
    recorders: list[Recorder] = []
    shown: list[int] = []

    def build(x: mb.Var, s0: mb.Var, s1: mb.Var) -> list[mb.Var]:
        recorder = Recorder(x, [s0, s1], random)
        while len(recorder.program) < random.integers(5, 14):
            recorder.add()
        recorder.add_loop([recorder.recent(), recorder.recent()])
        recorders.append(recorder)
        chosen = [v for v in recorder.values[1:] if random.random() < 0.3] or recorder.values[-1:]
        shown.extend(p for p, _ in chosen)
        return [mb.identity(x=v) for _, v in chosen]

    program = mil.load(save(folder, build, INPUT, STATES))
    state, states = program.make_state(), [np.zeros((SIDE, SIDE), np.float32)] * 2
    names, seen = [s.name for s in program.outputs], []
    for call in range(3):
        x = normal((SIDE, SIDE), call)
        env: Env = {0: x.copy()}
        found = program.run({"x": x}, state=state)
        for step in recorders[0].program:
            step(env, states)
        np.testing.assert_array_equal(x, normal((SIDE, SIDE), call))
        seen.append((found, [env[p] for p in shown]))
        for i, wanted in enumerate(states):
            np.testing.assert_array_equal(state.arrays.get(f"s{i}", wanted), wanted, err_msg=f"seed {seed}")
    for found, want in seen:  # looked at after later calls: outputs belong to the caller
        for name, value in zip(names, want, strict=True):
            np.testing.assert_array_equal(found[name], value, err_msg=f"seed {seed}")
    inside = [t for s in program.executable().steps for b in s.blocks for t in walk(b.steps)]
    return sum("in_place" in str(getattr(t.kernel, "func", "")) for t in inside)


def rounds(build: Callable[..., Any], loop_vars: tuple[Any, ...], count: int = 3) -> Any:
    """A loop of so many rounds: `build` gives the new variables, which come with a counter before them."""
    total = mb.reduce_sum(x=mb.cast(x=loop_vars[0], dtype="fp32"), keep_dims=False)
    zero = mb.cast(x=mb.mul(x=total, y=0.0), dtype="int32")
    return mb.while_loop(
        _cond=lambda i, *_: mb.less(x=i, y=count),
        _body=lambda i, *v: [mb.add(x=i, y=1), *build(i, *v)],
        loop_vars=(zero, *loop_vars),
    )[1:]


def first_row_plus_one(x: Any) -> Any:
    row = mb.slice_by_index(x=x, begin=[0, 0], end=[1, SIDE])
    return mb.slice_update(x=x, update=mb.add(x=row, y=1.0), begin=[0, 0], end=[1, SIDE])


def test_what_a_loop_captures_is_the_same_in_each_round() -> None:
    def build(x: mb.Var) -> Any:
        captured = mb.mul(x=x, y=2.0)
        return rounds(lambda i, total: [mb.add(x=total, y=first_row_plus_one(captured))], (mb.mul(x=x, y=0.0),))

    x, one = normal((SIDE, SIDE)), np.array([[1], [0], [0]], np.float32)
    np.testing.assert_allclose(outputs(build, {"x": x})[0], 3 * (2 * x + one), rtol=1e-6)


def test_a_condition_leaves_the_variables_as_they_are() -> None:
    """It adds one to a copy of the first row; the loop ends when the copy's sum is beyond a bound."""

    def build(x: mb.Var) -> Any:
        def condition(v: Any) -> Any:
            return mb.less(x=mb.reduce_sum(x=first_row_plus_one(v), keep_dims=False), y=20.0)

        return mb.while_loop(_cond=condition, _body=lambda v: mb.add(x=v, y=1.0), loop_vars=(mb.mul(x=x, y=1.0),))

    x = want = normal((SIDE, SIDE))
    while want.sum() + SIDE < 20:
        want = want + np.float32(1)
    np.testing.assert_allclose(outputs(build, {"x": x})[0], want, rtol=1e-6)


def test_a_cache_is_written_in_place_in_a_loop(tmp_path: Path) -> None:
    """Row i of the state becomes x * i, one row a round; the state's array stays the same one."""

    def build(x: mb.Var, s0: mb.Var) -> Any:
        def body(i: Any, v: Any) -> list[Any]:
            row = mb.mul(x=v, y=mb.cast(x=i, dtype="fp32"))
            begin = mb.concat(values=[mb.expand_dims(x=i, axes=[0]), mb.const(val=[0])], axis=0)
            end = mb.concat(values=[mb.expand_dims(x=mb.add(x=i, y=1), axes=[0]), mb.const(val=[SIDE])], axis=0)
            old = mb.read_state(input=s0)
            row = mb.cast(x=row, dtype="fp16")
            mb.coreml_update_state(state=s0, value=mb.slice_update(x=old, update=row, begin=begin, end=end))
            return [v]

        return rounds(body, (x,), SIDE)

    program = mil.load(save(tmp_path, build, {"x": ((1, SIDE), "float32")}, {"s0": STATES["s0"]}))
    state = program.make_state()
    array, x = state.arrays["s0"], normal((1, SIDE))
    for precision in ("fp32", "fp16"):
        program.run({"x": x}, state=state, precision=precision)
        assert state.arrays["s0"] is array
        np.testing.assert_allclose(array, x * np.arange(SIDE)[:, None], rtol=1e-3 if precision == "fp16" else 1e-6)


def test_lists_are_filled_in_loops() -> None:
    """A list grows by one element a round; another is read backwards; old lists stay as they were."""

    def build(x: mb.Var) -> Any:
        start = mb.make_list(init_length=0, dynamic_length=True, elem_shape=(SIDE,), dtype="fp32")
        fixed = mb.list_scatter(
            ls=mb.make_list(init_length=4, dynamic_length=False, elem_shape=(SIDE,), dtype="fp32"),
            indices=[0, 2, 1],
            value=x,
        )

        def body(i: Any, ls: Any, v: Any) -> list[Any]:
            element = mb.list_read(ls=fixed, index=mb.sub(x=2, y=i))
            grown = mb.list_write(ls=ls, index=mb.list_length(ls=ls), value=mb.add(x=v, y=element))
            return [grown, mb.mul(x=v, y=2.0)]

        zero = mb.cast(x=mb.mul(x=mb.reduce_sum(x=x, keep_dims=False), y=0.0), dtype="int32")
        first = mb.squeeze(x=mb.slice_by_index(x=x, begin=[0, 0], end=[1, SIDE]), axes=[0])
        _, ls, _ = mb.while_loop(
            _cond=lambda i, ls, v: mb.less(x=i, y=3),
            _body=lambda i, ls, v: [mb.add(x=i, y=1), *body(i, ls, v)],
            loop_vars=(zero, start, first),
        )
        overwritten = mb.list_write(ls=fixed, index=3, value=first)
        return [
            mb.list_gather(ls=ls, indices=[2, 0, 1]),
            mb.list_gather(ls=fixed, indices=[3, 0]),
            mb.list_gather(ls=overwritten, indices=[3]),
            mb.expand_dims(x=mb.list_length(ls=ls), axes=[0]),
        ]

    x = normal((SIDE, SIDE))
    grown = np.stack([x[0] + x[1], 2 * x[0] + x[2], 4 * x[0] + x[0]])
    want = [grown[[2, 0, 1]], np.stack([np.zeros(SIDE), x[0]]), x[:1], [3]]
    for found, wanted in zip(outputs(build, {"x": x}), want, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_list_is_read_within_its_bounds(tmp_path: Path) -> None:
    def build(i: mb.Var) -> Any:
        ls = mb.make_list(init_length=2, dynamic_length=False, elem_shape=(1,), dtype="int32")
        where = mb.squeeze(x=i)
        return mb.list_read(ls=mb.list_write(ls=ls, index=where, value=i), index=where)

    program = mil.load(save(tmp_path, build, {"i": ((1,), "int32")}))
    (found,) = program.run({"i": [1]}).values()
    assert found == [1]
    for index in (2, -1):
        with pytest.raises(FormatError, match=rf"list_write.*index {index} into a list of 2"):
            program.run({"i": [index]})


def test_blocks_are_rounded_and_watched_in_fp16(tmp_path: Path) -> None:
    def build(x: mb.Var) -> Any:
        return rounds(lambda i, v: [mb.mul(x=v, y=v, name="squared")], (x,), 4)

    program = mil.load(save(tmp_path, build, {"x": ((2,), "float16")}, name="squares"))
    watch, x = mil.Watch(), np.array([1.1, 20], np.float16)
    (found,) = program.run({"x": x}, precision="fp16", watch=watch).values()
    want = x
    with np.errstate(over="ignore"):
        for _ in range(4):
            want = want * want
    np.testing.assert_array_equal(found, want)
    assert watch.report is not None
    assert (watch.report.name, watch.report.largest_input) == ("squared", 160000**0.5)


def test_observers_see_every_round(tmp_path: Path) -> None:
    program = mil.load(save(tmp_path, collatz, {"n": ((1,), "int32")}))
    seen: list[tuple[str, Any]] = []
    (steps, _) = program.run({"n": [6]}, observe=lambda s, i, o: seen.append((s.op, *o))).values()
    assert [v for op, *v in seen if op == "mod"] == [[n % 2] for n in (6, 3, 10, 5, 16, 8, 4, 2)]
    assert [op for op, *_ in seen].count("cond") == steps == 8
    assert [s.op for s in walk(program.executable().steps)].count("mod") == 1


def test_blocks_must_fit_their_op() -> None:
    from satchel.runtime.mil.steps import Block

    for op, arguments, results, shapes in [
        ("cond", 1, 1, [(0, 1), (0, 2)]),
        ("cond", 1, 1, [(0, 1)]),
        ("while_loop", 2, 2, [(2, 1), (1, 2)]),
        ("while_loop", 2, 2, [(2, 2), (2, 2)]),
    ]:
        blocks = [Block((), tuple(range(i)), tuple(range(o))) for i, o in shapes]
        with pytest.raises(FormatError, match="blocks of"):
            BLOCK_OPS[op].check(f"{op} 'here'", blocks, arguments, results)


def test_a_memory_limit_holds_for_blocks(tmp_path: Path) -> None:
    """A constant beyond the limit is loaded once, before the op whose blocks use it, and let go after the last one."""
    w = normal((64, 64), scale=0.1)

    def build(x: mb.Var) -> Any:
        positive = mb.greater(x=mb.reduce_sum(x=x, keep_dims=False), y=0.0)
        weights = mb.const(val=w)
        x = mb.cond(
            pred=positive,
            _true_fn=lambda: mb.matmul(x=x, y=weights),
            _false_fn=lambda: mb.matmul(x=mb.matmul(x=x, y=weights), y=mb.const(val=w + 1)),
        )
        return rounds(lambda i, v: [mb.tanh(x=mb.matmul(x=v, y=weights))], (x,))

    path = save(tmp_path, build, {"x": ((1, 64), "float32")})
    free, tight = mil.load(path, kernels="numpy"), mil.load(path, max_memory=1024, kernels="numpy")
    x = normal((1, 64))
    for sign in (1, -1):
        given = sign * np.sign(x.sum()) * x
        (found,), (want,) = (p.run({"x": given}).values() for p in (tight, free))
        np.testing.assert_array_equal(found, want)
    steps = tight.executable().steps
    assert [s.op for s in steps if s.op in ("const", "cond", "while_loop")] == ["const", "const", "cond", "while_loop"]
    assert sum(v.nbytes for v in tight.executable().template if isinstance(v, np.ndarray)) <= 1024
