"""How far apart two results of one op may be, and why.

An op's error is judged against the size of its result: the larger of

- root mean square of the difference / root mean square of the result, and
- largest difference / largest result,

so that neither a faint error everywhere nor one wrong element is missed. Where terms cancel (add, sub, means, sums),
the result's size is that of its terms: rounding is relative to what was added, not to what is left of it. And it is at
least the smallest normal number of the result's type (6.1e-5 in fp16), below which roundings are absolute.

What is allowed is `SLACK * u * sqrt(depth)`, in which u is a unit roundoff (half the distance from 1 to the next
number) and depth the number of ops on the longest way from an input: roundings of different ops are as good as
independent, so that their sum grows with the root of their number. u is that of the coarsest type among all that the
result was made of, in either program. It is fp16's also where a program of type fp16 is computed in fp32, since its
weights were rounded to fp16 after whatever a converter's passes folded into them.

Of integers and truths the error is the share of elements that are not equal. Made from integers alone they must be
equal; made from floats (a comparison, an index of a largest value) as many may differ as floats may be off, since it is
those whose floats lie so close to where the decision turns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from satchel.runtime.mil.graph import UNIT_ROUNDOFF, Node

NAMES = {unit: name for name, unit in reversed(UNIT_ROUNDOFF.items())}
SMALLEST = {UNIT_ROUNDOFF["float16"]: 2.0**-14}
SLACK = 8.0
"""How much one op may multiply the errors of its inputs: products, whose terms cancel, and exp of large arguments."""
CANCELLING = ("add", "sub", "reduce_mean", "reduce_sum", "cumsum")
WORST = 0.5
"""Nothing is allowed beyond it: at a signal to noise ratio of 6 dB two results have little in common."""


@dataclass(frozen=True)
class Tolerance:
    """What is allowed.

    Attributes:
        value: largest error, relative to the result.
        reason: in words.
    """

    value: float
    reason: str


def least_size(a: Node, b: Node) -> float:
    """The least size that a result counts with: where its numbers become subnormal in the coarser type."""
    return SMALLEST.get(max(a.roundoff, b.roundoff), 2.0**-126)


def tolerance(a: Node, b: Node, given: float | None = None) -> Tolerance:
    """What a pair of ops is allowed.

    Args:
        a, b: one op in both programs.
        given: the user's own limit for every op that has floats before it, if there is one.
    """
    unit, depth = max(a.roundoff, b.roundoff), max(a.depth, b.depth, 1)
    if not unit:
        return Tolerance(0.0, f"{a.dtype or 'this type'} made of integers alone must be equal")
    if given is not None:
        return Tolerance(given, "as given")
    value = min(WORST, SLACK * unit * math.sqrt(depth))
    return Tolerance(value, f"{SLACK:g} x unit roundoff of {NAMES[unit]} ({unit:.2g}) x sqrt(depth {depth})")
