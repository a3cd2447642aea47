"""Which values share memory, so that a state can be updated in place without anyone seeing an old value change.

Every array belongs to roots: buffers it may be a view of. An op that makes a new array makes a new root; a view has the
roots of its inputs. Constants and the caller's arrays are foreign: never written to.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

Root = tuple[int, int]  # the slot that first held a buffer, and the number of the step that made it
Roots = frozenset[Root]
FOREIGN: Root = (-1, -1)


@dataclass
class Aliases:
    """The roots of every slot, as the steps of a program are walked through in order.

    Attributes:
        last_use: slot -> number of the last step that reads it; absent where nothing does.
    """

    last_use: dict[int, int]
    _roots: dict[int, Roots] = field(default_factory=dict)
    _members: dict[Root, set[int]] = field(default_factory=dict)

    def foreign(self, slot: int) -> None:
        """A slot that holds an array of someone else."""
        self.assign(slot, frozenset({FOREIGN}))

    def fresh(self, slot: int, step: int) -> None:
        """A slot that holds a new array, made by a step."""
        self.assign(slot, frozenset({(slot, step)}))

    def roots(self, *slots: int) -> Roots:
        """The buffers that a view of these slots may lie in."""
        return frozenset().union(*(self._roots.get(s, frozenset()) for s in slots))

    def owned(self, slot: int) -> bool:
        """Whether the program may write into the slot's array."""
        return FOREIGN not in self._roots.get(slot, frozenset({FOREIGN}))

    def shared(self, slot: int) -> set[int]:
        """The other slots that may share memory with this one."""
        members = (self._members.get(root, set()) for root in self._roots.get(slot, frozenset()))
        return set().union(*members) - {slot}

    def free_to_write(self, slot: int, step: int, ignoring: Iterable[int] = ()) -> bool:
        """Whether nobody reads the slot's array, or a view of it, after `step`."""
        if not self.owned(slot):
            return False
        others = self.shared(slot) - set(ignoring)
        return all(self.last_use.get(s, -1) <= step for s in (slot, *others))

    def assign(self, slot: int, roots: Roots) -> None:
        """A slot that may hold a view of any of these buffers."""
        for root in self._roots.get(slot, frozenset()):
            self._members[root].discard(slot)
        self._roots[slot] = roots
        for root in roots:
            self._members.setdefault(root, set()).add(slot)
