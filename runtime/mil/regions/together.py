"""Layouts in which several values can be broadcast, as few of them as possible laid anew."""

from __future__ import annotations

from collections.abc import Sequence

from satchel.runtime.mil.regions.operands import Graph, Operand, Shape, broadcast


def together(g: Graph, *operands: Operand) -> tuple[list[Operand], Shape, Shape]:
    """(the operands, laid so that broadcasting their layouts does what broadcasting their shapes does; the shape and
    the layout of the result)."""
    shape = broadcast(*(o.shape for o in operands))
    places = _places([o for o in operands if not o.is_small], len(shape))
    if places is None or any(n != 1 and i not in places.values() for i, n in enumerate(shape)):
        # Every axis that somebody has, and no other.
        kept = [i for i, n in enumerate(shape) if n != 1]
        places = {k - len(kept): i for k, i in enumerate(kept)}
        length = len(kept)
        moved = operands
    else:
        length = max(len(o.layout) for o in operands if not o.is_small)
        moved = tuple(o for o in operands if o.is_small or _is_one(o))
    layout = tuple(shape[places[p]] if p in places else 1 for p in range(-length, 0))
    fitted = [g.fit(o, _dims(o, places, length, len(shape))) if o in moved else o for o in operands]
    return fitted, shape, layout


def _places(operands: Sequence[Operand], rank: int) -> dict[int, int] | None:
    """Axis of the layouts, counted from the end -> axis of the result; None where the operands do not agree."""
    found: dict[int, int] = {}
    for operand in operands:
        axes = operand.axes()
        if axes is None:
            return None
        for own, laid in axes.items():
            place, axis = laid - len(operand.layout), own + rank - operand.rank
            if found.setdefault(place, axis) != axis:
                return None
    in_order = [found[place] for place in sorted(found)]
    return found if operands and in_order == sorted(set(in_order)) else None


def _dims(operand: Operand, places: dict[int, int], length: int, rank: int) -> Shape:
    """The layout of an operand in which its axes are where `places` says."""
    aligned = (1,) * (rank - operand.rank) + operand.shape
    return tuple(aligned[places[p]] if p in places else 1 for p in range(-length, 0))


def _is_one(operand: Operand) -> bool:
    """Whether it is a single number: onnxruntime is 40 times slower where that has fewer axes than the other."""
    return all(n == 1 for n in operand.shape)
