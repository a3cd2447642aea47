"""Which form each linear gets, from what each choice was measured to cost.

Every linear starts at its fewest bytes; then the steps to more are taken in the order of loss saved a byte spent. Steps
that would save less than a later one of the same linear are merged with it first (the lower convex hull), which makes
the greedy order the best one but for the last steps. What remains is the order's end: a size, or a loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from satchel.export.palettize.candidates import Cost

Options = Mapping[str, Mapping[str, Cost]]
"""Linear -> form -> what it costs."""


def within_bytes(options: Options, limit: int) -> dict[str, str]:
    """A form for each linear with the least loss in `limit` bytes; the fewest bytes even where that is more."""
    chosen = fewest(options)
    left = limit - total(options, chosen).bytes
    for name, form in _steps(options):
        spent = options[name][form].bytes - options[name][chosen[name]].bytes
        if 0 < spent <= left:
            chosen[name] = form
            left -= spent
    return chosen


def within_loss(options: Options, limit: float) -> dict[str, str]:
    """A form for each linear with the fewest bytes at a loss of `limit` nats; the least loss where that is more."""
    chosen = fewest(options)
    loss = total(options, chosen).loss
    for name, form in _steps(options):
        if loss <= limit:
            break
        loss += options[name][form].loss - options[name][chosen[name]].loss
        chosen[name] = form
    return chosen


def total(options: Options, chosen: Mapping[str, str]) -> Cost:
    """What a choice costs altogether: losses of linears add up, to second order."""
    costs = [options[name][form] for name, form in chosen.items()]
    return Cost(sum(c.loss for c in costs), sum(c.bytes for c in costs))


def fewest(options: Options) -> dict[str, str]:
    """The smallest form of each linear."""
    return {name: min(costs, key=lambda form: (costs[form].bytes, form)) for name, costs in options.items()}


def _steps(options: Options) -> Iterator[tuple[str, str]]:
    """(linear, form) in the order of loss saved a byte; of one linear with growing bytes."""
    steps = [(-gain, name, form) for name, costs in options.items() for gain, form in _hull(costs)]
    return ((name, form) for _, name, form in sorted(steps))


def _hull(costs: Mapping[str, Cost]) -> list[tuple[float, str]]:
    """The corners of the lower convex hull after the first: (loss saved a byte since the last, form)."""
    here = min(costs.values(), key=lambda c: c.bytes)
    steps: list[tuple[float, str]] = []
    while True:
        ahead = [
            ((here.loss - c.loss) / (c.bytes - here.bytes), form) for form, c in costs.items() if c.bytes > here.bytes
        ]
        gain, form = max(ahead, default=(0.0, ""))
        if gain <= 0:
            return steps
        here = costs[form]
        steps.append((gain, form))
