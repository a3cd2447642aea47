"""How many bits each linear gets, from what each choice was measured to cost.

Every linear starts at its fewest bytes; then the steps to more are taken in the order of loss saved a byte spent. Steps
that would save less than a later one of the same linear are merged with it first (the lower convex hull), which makes
the greedy order the best one but for the last steps. What remains is the order's end: a size, or a loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from satchel.export.palettize.candidates import Cost

Options = Mapping[str, Mapping[int, Cost]]
"""Linear -> bits -> what they cost."""


def within_bytes(options: Options, limit: int) -> dict[str, int]:
    """Bits for each linear with the least loss in `limit` bytes; the fewest bytes are taken even where that is more."""
    chosen = _fewest(options)
    left = limit - total(options, chosen).bytes
    for name, bits in _steps(options):
        spent = options[name][bits].bytes - options[name][chosen[name]].bytes
        if 0 < spent <= left:
            chosen[name] = bits
            left -= spent
    return chosen


def within_loss(options: Options, limit: float) -> dict[str, int]:
    """Bits for each linear with the fewest bytes at a loss of `limit` nats; the least loss where that is more."""
    chosen = _fewest(options)
    loss = total(options, chosen).loss
    for name, bits in _steps(options):
        if loss <= limit:
            break
        loss += options[name][bits].loss - options[name][chosen[name]].loss
        chosen[name] = bits
    return chosen


def total(options: Options, chosen: Mapping[str, int]) -> Cost:
    """What a choice costs altogether: losses of linears add up, to second order."""
    costs = [options[name][bits] for name, bits in chosen.items()]
    return Cost(sum(c.loss for c in costs), sum(c.bytes for c in costs))


def _fewest(options: Options) -> dict[str, int]:
    return {name: min(costs, key=lambda bits: (costs[bits].bytes, bits)) for name, costs in options.items()}


def _steps(options: Options) -> Iterator[tuple[str, int]]:
    """(linear, bits) in the order of loss saved a byte; of one linear with growing bytes."""
    steps = [(-gain, name, bits) for name, costs in options.items() for gain, bits in _hull(costs)]
    return ((name, bits) for _, name, bits in sorted(steps))


def _hull(costs: Mapping[int, Cost]) -> list[tuple[float, int]]:
    """The corners of the lower convex hull after the first: (loss saved a byte since the last, bits)."""
    here = min(costs.values(), key=lambda c: c.bytes)
    steps: list[tuple[float, int]] = []
    while True:
        ahead = [((here.loss - c.loss) / (c.bytes - here.bytes), bits) for bits, c in costs.items() if c.bytes > here.bytes]
        gain, bits = max(ahead, default=(0.0, 0))
        if gain <= 0:
            return steps
        here = costs[bits]
        steps.append((gain, bits))
