"""Where the values of a compiled function live: which steps write in place, and when a value is let go.

Steps are numbered in the order in which they would run, the steps of blocks before the step that has them. A value
that a loop takes from outside is read again in the next round, so it is in use until the loop's end. A variable of a
loop may be whatever it was given at the start or whatever the body gave: the body is looked at until that is settled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from satchel.runtime.mil.aliases import FOREIGN, Aliases, Roots
from satchel.runtime.mil.ops import OPS
from satchel.runtime.mil.ops.movement import identity
from satchel.runtime.mil.steps import Block, Step

ROUNDS = 4  # a loop that is not settled after so many is taken to share everything
DEEPEST = 3  # so is one inside so many other loops: looking at it takes rounds * rounds * ...
Kernels = Mapping[int, tuple[Callable[..., Any], Callable[..., Any]]]


def place(
    steps: Sequence[Step], kernels: Kernels, slots: int, states: Sequence[int], outputs: Sequence[int], kept: set[int]
) -> set[int]:
    """Decides which steps write in place, and fills in what each step and block lets go.

    Args:
        steps: of the function; changed.
        kernels: output slot of a slice_update -> (kernel that copies, kernel that writes into its first input).
        slots: how many there are.
        states: slots of the states.
        outputs: slots that the function returns.
        kept: slots that must not be emptied; those of states need not be named.

    Returns:
        Those outputs that must be copied: they may share memory with a state, a constant or an input.
    """
    order = _Order()
    order.number(steps)
    for slot in (*outputs, *states):
        order.read(slot, order.now)
    aliases = Aliases(order.last_use)
    for slot in range(slots):
        aliases.foreign(slot)
    for slot in states:
        aliases.fresh(slot, -1)
    _Placer(order, aliases, tuple(states), kernels).steps(steps)
    _let_go(steps, {slot for step in steps if step.op != "write_state" for slot in step.outputs} - kept)
    return {o for o in outputs if not aliases.owned(o) or aliases.shared(o) & set(states)}


@dataclass
class _Order:
    """Numbers of steps and of the ends of blocks, and the last reader of every slot.

    Attributes:
        now: the next number.
        numbers: of steps, by id.
        last_use: slot -> the number at which it is last read.
    """

    now: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    last_use: dict[int, int] = field(default_factory=dict)

    def read(self, slot: int, when: int) -> None:
        self.last_use[slot] = max(when, self.last_use.get(slot, -1))

    def number(self, steps: Iterable[Step]) -> None:
        for step in steps:
            for slot in step.inputs:
                self.read(slot, self.now)
            for block in step.blocks:
                self._block(step, block)
            if step.blocks:
                self.now += 1
            self.numbers[id(step)] = self.now
            if step.op == "while_loop":
                for slot in step.reads[len(step.inputs) :]:
                    self.read(slot, self.now)
            self.now += 1

    def _block(self, step: Step, block: Block) -> None:
        self.now += 1
        if step.op == "while_loop":  # its variables are wanted when the condition is known, be it only as its results
            for slot in block.inputs:
                self.read(slot, self.now)
        self.number(block.steps)
        for slot in block.outputs:
            self.read(slot, self.now)
        self.now += 1


@dataclass
class _Placer:
    order: _Order
    aliases: Aliases
    states: tuple[int, ...]
    kernels: Kernels
    depth: int = 0

    def steps(self, steps: Sequence[Step]) -> None:
        """Says whose memory each result is, and makes steps write in place where nobody would notice."""
        for i, step in enumerate(steps):
            now = self.order.numbers[id(step)]
            if step.op == "cond":
                self._cond(step)
            elif step.op == "while_loop":
                self._while(step)
            elif step.op == "write_state":
                self._write(step, now)
            elif step.op == "slice_update":
                self._update(step, now, steps[i + 1 :])
            elif step.op == "const":
                self.aliases.foreign(step.output)  # it may be a view of the file
            elif step.op == "read_state" or (step.op in OPS and OPS[step.op].view):
                self._each(step.outputs, self.aliases.roots(*step.inputs))
            else:  # new memory, which several results may share: the last state of a recurrent layer is in the sequence
                self._each(step.outputs, frozenset({(step.outputs[0], now)}))

    def _each(self, slots: Iterable[int], roots: Roots) -> None:
        for slot in slots:
            self.aliases.assign(slot, roots)

    def _write(self, step: Step, now: int) -> None:
        """A state takes the written array itself where it is the program's own and no other state's; else a copy."""
        (data,) = step.inputs
        others = (self.aliases.shared(data) & set(self.states)) - {step.output}
        if self.aliases.owned(data) and not others:
            step.kernel = identity
            self.aliases.assign(step.output, self.aliases.roots(data))
        else:
            step.kernel = _copy
            self.aliases.fresh(step.output, now)

    def _update(self, step: Step, now: int, later: Sequence[Step]) -> None:
        copying, in_place = self.kernels[step.output]
        if self.aliases.free_to_write(step.inputs[0], now, _replaced(later, self.states)):
            step.kernel = in_place
            self.aliases.assign(step.output, self.aliases.roots(step.inputs[0]))
        else:
            step.kernel = copying
            self.aliases.fresh(step.output, now)

    # ---- blocks ----------------------------------------------------------------------------------------------

    def _cond(self, step: Step) -> None:
        """The results and the states may be those of either block."""
        before = self._states()
        ends = [self._branch(block, before) for block in step.blocks]
        for slot, *roots in zip(step.outputs, *(results for results, _ in ends), strict=True):
            self.aliases.assign(slot, frozenset().union(*roots))
        for slot, *roots in zip(self.states, *(states for _, states in ends), strict=True):
            self.aliases.assign(slot, frozenset().union(*roots))

    def _branch(self, block: Block, before: list[Roots]) -> tuple[list[Roots], list[Roots]]:
        """(roots of its results, roots of the states after it)."""
        self._restore(before)
        self.steps(block.steps)
        results = [self.aliases.roots(o) for o in block.outputs]
        after = self._states()
        self._forget(block)
        return results, after

    def _while(self, step: Step) -> None:
        """What a variable may be grows with what the body gives for it, until it does not."""
        variables = [self.aliases.roots(slot) for slot in step.inputs[1:]]
        states = self._states()
        self.depth += 1
        for _ in range(ROUNDS if self.depth <= DEEPEST else 0):
            given, after = self._round(step, variables, states)
            if (given, after) == (variables, states):
                break
            variables, states = given, after
        else:
            given, after = self._unsettled(step, variables, states)
        self.depth -= 1
        self._restore(after)
        for slot, roots in zip(step.outputs, given, strict=True):
            self.aliases.assign(slot, roots)

    def _round(self, step: Step, variables: list[Roots], states: list[Roots]) -> tuple[list[Roots], list[Roots]]:
        """What variables and states may be after one more round."""
        condition, body = step.blocks
        self._restore(states)
        for block in step.blocks:
            for slot, roots in zip(block.inputs, variables, strict=True):
                self.aliases.assign(slot, roots)
        self.steps(condition.steps)
        self.steps(body.steps)
        given = [v | self.aliases.roots(o) for v, o in zip(variables, body.outputs, strict=True)]
        after = [s | now for s, now in zip(states, self._states(), strict=True)]
        for block in step.blocks:
            self._forget(block)
        return given, after

    def _unsettled(self, step: Step, variables: list[Roots], states: list[Roots]) -> tuple[list[Roots], list[Roots]]:
        """A round that writes into no variable and no state; after it each of them may be any other."""
        foreign = frozenset({FOREIGN})
        given, after = self._round(step, [v | foreign for v in variables], [s | foreign for s in states])
        any_of_them = foreign.union(*given, *after)
        return [any_of_them for _ in given], [any_of_them for _ in after]

    def _states(self) -> list[Roots]:
        return [self.aliases.roots(s) for s in self.states]

    def _restore(self, states: list[Roots]) -> None:
        for slot, roots in zip(self.states, states, strict=True):
            self.aliases.assign(slot, roots)

    def _forget(self, block: Block) -> None:
        """Nobody reads a block's own values after it, not even in the next round."""
        for slot in block.own():
            self.aliases.assign(slot, frozenset())


def _copy(x: Any) -> Any:
    return x.copy()


def _replaced(later: Sequence[Step], states: Sequence[int]) -> list[int]:
    """The states that are written by later steps before anyone reads them: their old content may be lost."""
    replaced = []
    undecided = set(states)
    for step in later:
        if step.op == "write_state" and step.output in undecided:
            undecided.discard(step.output)
            replaced.append(step.output)
        undecided -= set(step.reads)
        if not undecided:
            break
    return replaced


def _let_go(steps: Sequence[Step], own: set[int]) -> None:
    """Fills in which of the slots in `own` are emptied after each step, and the same for the blocks in steps."""
    last_use = {slot: i for i, step in enumerate(steps) for slot in step.reads}
    for i, step in enumerate(steps):
        touched = dict.fromkeys((*step.reads, *step.outputs))
        step.free = tuple(s for s in touched if s in own and last_use.get(s, -1) <= i)
        for block in step.blocks:
            inside = set(block.own())
            block.clear = tuple(s for s in dict.fromkeys((*block.inputs, *block.outputs)) if s in inside)
            _let_go(block.steps, inside - set(block.outputs))
