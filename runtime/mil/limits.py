"""How large values may become, and how long loops may run, so that a malformed program is refused and not obeyed.

A few bytes of a program can ask for terabytes, or for a loop without end. Before an op runs, the size of its result is
worked out from its arguments (growth.py) and held against a limit; sound programs stay far below it, since what they
make is some small multiple of their weights and inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from satchel.runtime.errors import FormatError
from satchel.runtime.manifest import TensorSpec
from satchel.runtime.mil.dtypes import BY_NAME, compute_type
from satchel.runtime.mil.growth import BROADCASTING, CONSTANT_SIZES, SIZES, broadcast_size

LEAST = 1 << 28  # bytes that any value may take
PER_WEIGHT = 4  # ... and so many for a byte of weights: a value larger than all weights expanded to fp32 is unusual
PER_CODE = 64  # ... or that many in a constant made of the weights: a bit may stand for several numbers
PER_INPUT = 64  # ... and for a byte of input: images of 3 channels become images of 64 or 128
ROUNDS = 10_000  # of all loops in one call; or one for a byte of input, for loops that go through an input
ITEM = 4  # bytes of most elements
HINT = "if the program is meant to be so large, load it with max_memory= (--max-memory) of at least what it needs"


@dataclass
class Limit:
    """What one value of a program may take. It grows with what the caller hands in, and never shrinks.

    Attributes:
        nbytes: bytes that a value may take.
        rounds: how many rounds all loops of a call may take together.
    """

    nbytes: int = LEAST
    rounds: int = ROUNDS

    def allow(self, weights: int = 0, inputs: int = 0, wanted: int = 0) -> None:
        """Raises the limit for a program with so many bytes of weights and inputs, or to what the user wants."""
        self.rounds = max(self.rounds, inputs)
        self.nbytes = max(self.nbytes, PER_WEIGHT * weights, PER_INPUT * inputs, wanted)

    def check(self, what: str, elements: int, item: int = ITEM) -> None:
        """FormatError where a value of so many elements is beyond the limit."""
        if elements * item > self.nbytes:
            got = f"a value of {elements * item:.3g} bytes"
            raise FormatError(what, got=got, wanted=f"at most {self.nbytes}", hint=HINT)

    def check_spec(self, what: str, spec: TensorSpec) -> None:
        """The same for a declared tensor; one with unknown dimensions is taken as sound."""
        if spec.dtype not in BY_NAME:  # a dictionary or a list
            return
        known = [d for d in spec.shape if isinstance(d, int)]
        if len(known) == len(spec.shape):
            self.check(what, math.prod(known), compute_type(BY_NAME[spec.dtype]).itemsize)

    def check_constant(self, what: str, nbytes: int) -> None:
        """FormatError where a constant takes more when it is expanded than the weights can hold."""
        allowed = self.nbytes // PER_WEIGHT * PER_CODE
        if nbytes > allowed:
            raise FormatError(what, got=f"a constant of {nbytes:.3g} bytes", wanted=f"at most {allowed}", hint=HINT)

    def check_rounds(self, rounds: int) -> None:
        """FormatError where the loops of a call took more rounds than is allowed."""
        if rounds > self.rounds:
            wanted, hint = f"at most {self.rounds} in a call", "a loop seems to have no end"
            raise FormatError("rounds of all loops", got=rounds, wanted=wanted, hint=hint)


def checked(run: Callable[..., Any], op: str, what: str, limit: Limit) -> Callable[..., Any]:
    """`run`, preceded by a look at how large its result will be; `run` itself for an op whose result cannot grow."""
    if op in BROADCASTING:
        return _checked_broadcast(run, what, limit)
    if op not in SIZES:
        return run
    size = SIZES[op]

    def call(*arrays: Any, **statics: Any) -> Any:
        limit.check(what, size(*arrays, **statics))
        return run(*arrays, **statics)

    return call


def _checked_broadcast(run: Callable[..., Any], what: str, limit: Limit) -> Callable[..., Any]:
    """The same for elementwise ops, which are small and many: two shapes are broadcast only where they may be large."""

    def call(x: Any, y: Any) -> Any:
        if x.size * y.size * ITEM > limit.nbytes and x.shape != y.shape:
            limit.check(what, broadcast_size(x, y))
        return run(x, y)

    return call


def check_constant_size(op: str, values: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    """ValueError where a compressed constant would be expanded to more elements than it declares.

    One output of two that a sparse constant has is shorter than the values that it is made of.
    """
    size = CONSTANT_SIZES.get(op)
    found, declared = size(**values) if size else 0, math.prod(shape)
    if found > declared:
        raise ValueError(f"{found} elements for a constant of {declared}")
