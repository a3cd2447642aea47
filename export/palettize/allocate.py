"""How many bits each matrix gets: the least loss for a number of bytes, from what each choice was measured to cost."""

from __future__ import annotations

from collections.abc import Mapping


def allocate(losses: Mapping[str, Mapping[int, float]], sizes: Mapping[str, int], average: float) -> dict[str, int]:
    """Chooses bits for each matrix.

    Every matrix starts at its fewest bits; then the steps to more bits are taken in the order of loss saved a bit
    spent, as long as they fit. Steps that would save less than a later one of the same matrix are merged with it first
    (the lower convex hull), which makes the greedy order the best one but for the last steps that no longer fit.

    Args:
        losses: matrix -> bits -> loss.
        sizes: matrix -> how many weights it has.
        average: bits a weight that all may take together; the fewest bits are taken even where that is more.

    Returns:
        matrix -> bits.
    """
    chosen = {name: min(by_bits) for name, by_bits in losses.items()}
    left = average * sum(sizes.values()) - sum(bits * sizes[name] for name, bits in chosen.items())
    steps = [(-gain / sizes[name], name, bits) for name in losses for gain, bits in _steps(losses[name])]
    for _, name, bits in sorted(steps):
        spent = (bits - chosen[name]) * sizes[name]
        if 0 < spent <= left:
            chosen[name] = bits
            left -= spent
    return chosen


def _steps(losses: Mapping[int, float]) -> list[tuple[float, int]]:
    """The corners of the lower convex hull after the first: (loss saved a bit of width since the last, bits)."""
    corners = [min(losses)]
    steps: list[tuple[float, int]] = []
    while True:
        here = corners[-1]
        ahead = [((losses[here] - losses[bits]) / (bits - here), bits) for bits in sorted(losses) if bits > here]
        gain, bits = max(ahead, key=lambda step: step[0], default=(0.0, 0))
        if gain <= 0:
            return steps
        corners.append(bits)
        steps.append((gain, bits))
