"""Conditional blocks and loops. They run steps of their own, on the values of the running call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from satchel.runtime.errors import FormatError
from satchel.runtime.mil.ops.base import Array

if TYPE_CHECKING:  # compiled steps know the limits of ops, so ops cannot import them
    from satchel.runtime.mil.steps import Block, Step


class Frame(Protocol):
    """The running call.

    Attributes:
        values: by slot.
    """

    values: list[Any]

    def run(self, steps: Sequence[Step]) -> None:
        """Runs steps on the values."""

    def another_round(self) -> int:
        """Counts the rounds of all loops of the call, and stops one that has no end."""


@dataclass(frozen=True)
class BlockOp:
    """An op that has blocks.

    Attributes:
        run: called with the frame and the values of its argument, and with `blocks`; returns a tuple of results.
        argument: name of its only argument, a list for a loop.
        check: called as check(what, blocks, number of arguments, number of results) before anything runs; FormatError
            where they do not fit together.
    """

    run: Callable[..., tuple[Any, ...]]
    argument: str
    check: Callable[[str, Sequence[Block], int, int], None]


def cond(frame: Frame, pred: Array, *, blocks: Sequence[Block]) -> tuple[Any, ...]:
    """The results of the first block where pred, else of the second."""
    return _run(frame, blocks[0 if _truth(pred) else 1], ())


def while_loop(frame: Frame, *loop_vars: Any, blocks: Sequence[Block]) -> tuple[Any, ...]:
    """The variables after as many rounds of the second block as the first one says."""
    condition, body = blocks
    while _truth(_run(frame, condition, loop_vars)[0]):
        frame.another_round()
        loop_vars = _run(frame, body, loop_vars)
    return loop_vars


def _truth(pred: Any) -> bool:
    return bool(np.asarray(pred).reshape(-1)[0])


def _run(frame: Frame, block: Block, inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The results of a block, whose own values are let go."""
    values = frame.values
    for slot, value in zip(block.inputs, inputs, strict=True):
        values[slot] = value
    frame.run(block.steps)
    results = tuple(values[slot] for slot in block.outputs)
    for slot in block.clear:
        values[slot] = None
    return results


def _check_cond(what: str, blocks: Sequence[Block], arguments: int, results: int) -> None:
    shape = [(len(b.inputs), len(b.outputs)) for b in blocks]
    _check(what, shape, [(0, results)] * 2)


def _check_while(what: str, blocks: Sequence[Block], arguments: int, results: int) -> None:
    shape = [(len(b.inputs), len(b.outputs)) for b in blocks]
    _check(what, [*shape, (arguments, results)], [(arguments, 1), (arguments, arguments), (arguments, arguments)])


def _check(what: str, got: list[tuple[int, int]], wanted: list[tuple[int, int]]) -> None:
    if got != wanted:
        hint = "the program is malformed"
        raise FormatError(f"inputs and outputs of the blocks of {what}", got=got, wanted=wanted, hint=hint)


BLOCK_OPS: dict[str, BlockOp] = {
    "cond": BlockOp(cond, "pred", _check_cond),
    "while_loop": BlockOp(while_loop, "loop_vars", _check_while),
}
