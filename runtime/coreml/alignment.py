"""Which op of one program is which op of another: two conversions of one network, or one package before and after.

Both programs are laid out as sequences and aligned as a whole, as texts are, so that ops which one of them lacks, and
names that were counted anew, shift nothing. A pair must have equal shapes (dimensions of one aside) and is worth

- 40 for the same type of op,
- 20 for the same name of the result, whatever the type: passes keep it when they replace an op; but 1 where the name is
  a mere number behind the op's type or "op", "var", "input": those are counted anew by every conversion,
- 20 for a weight of the same name, on top of the same type.

The alignment with the greatest sum wins. Ops that a pass moved past others are then paired by name, if type and shape
are equal too. Last, pairs of ops that only cast or move one value fall apart where those values are not a pair, since
nothing else tells one cast or reshape from another.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import numpy as np

from satchel.runtime.mil.graph import Graph, Node
from satchel.runtime.mil.ops import OPS

SAME_OP, SAME_NAME, SAME_NUMBER, SAME_WEIGHT = 40, 20, 1, 20
MOST_CELLS = 50_000_000  # of the alignment's table (200 MB); beyond it types and shapes alone are aligned
NUMBERED = re.compile(r"(op|var|input|const|x)?_?\d+(_\d+)?")
# What passes of coremltools append to the names of weights and values.
SUFFIX = re.compile(r"(_(to_fp(16|32)|cast_fp(16|32)|palettized|quantized|sparsified|promoted(_to_fp(16|32))?))+$")


def align(a: Graph, b: Graph) -> list[tuple[Node, Node]]:
    """Pairs of nodes that stand for the same value, in the order of a."""
    first, last = _equal_ends(a.nodes, b.nodes)
    inner_a, inner_b = a.nodes[first : len(a.nodes) - last], b.nodes[first : len(b.nodes) - last]
    pairs = list(zip(a.nodes[:first], b.nodes[:first], strict=True))
    pairs += [(inner_a[i], inner_b[j]) for i, j in _aligned(inner_a, inner_b)]
    pairs += zip(a.nodes[len(a.nodes) - last :], b.nodes[len(b.nodes) - last :], strict=True)
    pairs = sorted([*pairs, *_by_name(a, b, pairs)], key=lambda pair: pair[0].index)
    return _without_strangers(a, b, pairs)


def _equal_ends(a: Sequence[Node], b: Sequence[Node]) -> tuple[int, int]:
    """How many nodes at the start, and at the end, are the same by type, shape and name."""
    most = min(len(a), len(b))
    first = next((i for i in range(most) if not _same(a[i], b[i])), most)
    last = next((i for i in range(most - first) if not _same(a[-1 - i], b[-1 - i])), most - first)
    return first, last


def _same(a: Node, b: Node) -> bool:
    return (a.op, a.plain_shape, a.output) == (b.op, b.plain_shape, b.output)


def _by_name(a: Graph, b: Graph, pairs: Sequence[tuple[Node, Node]]) -> Iterator[tuple[Node, Node]]:
    taken_a, taken_b = {p[0].output for p in pairs}, {p[1].output for p in pairs}
    for node in a.nodes:
        other = b.made_by.get(node.output)
        if other and node.output not in taken_a and other.output not in taken_b and _same(node, other):
            yield node, other


def _without_strangers(a: Graph, b: Graph, pairs: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
    """The pairs but for those of moved values that are paired with others."""
    partner = {x: y for p, q in pairs for x, y in zip(p.outputs, q.outputs, strict=False)}
    back = {y: x for x, y in partner.items()}

    def strangers(x: Node, y: Node) -> bool:
        if not (_moves(x) and _moves(y) and len(x.sources) == len(y.sources) == 1):
            return False
        this, that = _before_casts(a, x.sources[0]), _before_casts(b, y.sources[0])
        there = partner.get(this, None if this in a.made_by else this)
        here = back.get(that, None if that in b.made_by else that)
        return (there or that) != that or (here or this) != this

    return [pair for pair in pairs if not strangers(*pair)]


def _before_casts(found: Graph, name: str) -> str:
    """The value that casts were made of; one program has more of them than another."""
    while (node := found.made_by.get(name)) is not None and node.op in ("cast", "identity") and node.sources:
        name = node.sources[0]
    return name


def _moves(node: Node) -> bool:
    return node.op == "cast" or (node.op in OPS and OPS[node.op].view)


# --- the alignment ---


class _Codes:
    """Numbers of whatever can be compared, equal for equal things."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def __call__(self, things: Sequence[object]) -> np.ndarray:
        return np.array([self._known.setdefault(t, len(self._known)) for t in things], np.int32)


def _aligned(a: Sequence[Node], b: Sequence[Node]) -> list[tuple[int, int]]:
    if not a or not b:
        return []
    if len(a) * len(b) > MOST_CELLS:
        return _by_type(a, b)
    kinds, names, weights = _Codes(), _Codes(), _Codes()
    kind_a, kind_b = (kinds([(n.op, n.plain_shape) for n in side]) for side in (a, b))
    name_worth = np.array([SAME_NUMBER if _numbered(n) else SAME_NAME for n in a])
    name_a, name_b = (names([(plain_name(n.output), n.plain_shape) for n in side]) for side in (a, b))
    none = int(weights([()])[0])
    weight_a, weight_b = (weights([tuple(map(plain_name, n.weights)) for n in side]) for side in (a, b))

    def scores(i: int) -> np.ndarray:
        """What a pair of a's node i with each node of b is worth."""
        same = kind_b == kind_a[i]
        worth = SAME_OP * same + name_worth[i] * (name_b == name_a[i])
        return worth + SAME_WEIGHT * (same & (weight_b == weight_a[i]) & (weight_a[i] != none))

    best = np.zeros((len(a) + 1, len(b) + 1), np.int32)
    for i in range(len(a)):
        np.maximum.accumulate(np.maximum(best[i, 1:], best[i, :-1] + scores(i)), out=best[i + 1, 1:])
    return _traced(best, scores)


def _traced(best: np.ndarray, scores: object) -> list[tuple[int, int]]:
    """The pairs of the best alignment, from the table of the best sums of all beginnings."""
    assert callable(scores)
    i, j = best.shape[0] - 1, best.shape[1] - 1
    pairs = []
    while i and j:
        worth = int(scores(i - 1)[j - 1])
        if worth and best[i, j] == best[i - 1, j - 1] + worth:
            pairs.append((i - 1, j - 1))
            i, j = i - 1, j - 1
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            j -= 1
    return pairs[::-1]


def _numbered(node: Node) -> bool:
    """Whether the name says nothing but a number."""
    return bool(NUMBERED.fullmatch(plain_name(node.output).removeprefix(node.op)))


def plain_name(name: str) -> str:
    """A name without what coremltools' passes append."""
    return SUFFIX.sub("", name)


def _by_type(a: Sequence[Node], b: Sequence[Node]) -> list[tuple[int, int]]:
    """For very long programs: blocks of equal types and shapes, the longest first."""
    kinds_a, kinds_b = ([(n.op, n.plain_shape) for n in side] for side in (a, b))
    blocks = difflib.SequenceMatcher(None, kinds_a, kinds_b, autojunk=False).get_matching_blocks()
    return [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]
