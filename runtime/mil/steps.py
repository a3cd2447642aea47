"""What a compiled function consists of: steps, blocks of steps inside steps, and the executable around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.limits import Limit
from satchel.runtime.mil.precision import Precision

# Slots with a meaning of their own.
NO_VALUE = 0  # holds None, for optional arrays that are absent
FRAME_SLOT = 1  # the running call (interpreter.Frame), for ops with blocks
RNG_SLOT = 2  # the call's generator of random numbers
RESERVED = 3  # how many of them there are


@dataclass(slots=True)
class Step:
    """One op, ready to run.

    Attributes:
        kernel: called with the values of `inputs`.
        inputs: slots.
        output: slot of its result; for several outputs `outputs` holds them and this is -1.
        outputs: slots of its results.
        rounds: whether its results must be rounded to fp16.
        contraction: whether it is a matrix product.
        op, name: what it is in the program, for messages.
        free: slots that nobody reads after this step.
        specs: of its outputs, in the order of `outputs`; empty for a step that the program does not have.
        blocks: of a cond (true, false) or a while_loop (condition, body); they work on the same slots.
        statics: constant arguments that are bound to the kernel; None where it is not simply the op's own function.
    """

    kernel: Callable[..., Any]
    inputs: tuple[int, ...]
    output: int
    outputs: tuple[int, ...]
    rounds: bool
    contraction: bool
    op: str
    name: str
    free: tuple[int, ...] = ()
    specs: tuple[TensorSpec, ...] = ()
    blocks: tuple[Block, ...] = ()
    statics: Mapping[str, Any] | None = None

    @property
    def reads(self) -> tuple[int, ...]:
        """Every slot that must hold its value when the step starts: `inputs`, and what its blocks take from outside."""
        if not self.blocks:
            return self.inputs
        return (*self.inputs, *(slot for block in self.blocks for slot in block.captured))


@dataclass(slots=True)
class Block:
    """Steps inside a step.

    Attributes:
        steps: in order.
        inputs: slots that are filled before the block runs (of a while_loop: its variables).
        outputs: slots of its results, which may be inputs, captured values or constants.
        captured: slots that its steps read, at any depth, or that are its outputs, and that are not its own.
        clear: slots to empty when the results have been taken.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    captured: tuple[int, ...] = ()
    clear: tuple[int, ...] = ()

    def own(self) -> Iterator[int]:
        """The slots that the block fills itself, those of blocks inside it left out."""
        yield from self.inputs
        for step in self.steps:
            if step.op != "write_state":
                yield from step.outputs


@dataclass(frozen=True)
class Executable:
    """A function, compiled for one precision.

    Attributes:
        name: of the function.
        precision: "fp32" or "fp16".
        steps: in order.
        template: a value for every slot: constants where they are kept, None elsewhere.
        inputs, states: spec -> slot.
        outputs: name -> slot, and the spec where the program says it.
        copied: names of outputs that must be copied, since they may share memory with a state.
        random: whether a step takes random numbers from the call's generator.
        limit: how long its loops may run.
    """

    name: str
    precision: Precision
    steps: tuple[Step, ...]
    template: tuple[Any, ...]
    inputs: tuple[tuple[TensorSpec, int], ...]
    states: tuple[tuple[TensorSpec, int], ...]
    outputs: tuple[tuple[TensorSpec, int], ...]
    copied: frozenset[str]
    random: bool = False
    limit: Limit = field(default_factory=Limit)


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """Every step, those in blocks before the step that has them."""
    for step in steps:
        for block in step.blocks:
            yield from walk(block.steps)
        yield step
