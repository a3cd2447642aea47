"""The choices of a plan as they are made, one role after the other, with what the user settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from satchel.devices.errors import PlanError
from satchel.devices.plan import Choice, Rejection
from satchel.devices.rulebook import rule

ASKED = "asked for"


@dataclass(frozen=True)
class Other:
    """A value that a role does not get unless it is asked for.

    Attributes:
        value: such as "linear".
        why: what speaks against it.
        rules: ids of the rules that say so, the weightiest first, such as "NE07" or "NE23, NE02".
        possible: whether it can be had by asking.
    """

    value: str
    why: str
    rules: str
    possible: bool = True


def never(value: str, why: str, rules: str) -> Other:
    """An alternative that is refused even if it is asked for."""
    return Other(value, why, rules, possible=False)


class Decisions:
    """Choices in the order in which they were made.

    Args:
        title: of the device, for messages.
        overrides: role -> value, what the user settled.
    """

    def __init__(self, title: str, overrides: Mapping[str, str]) -> None:
        self.choices: list[Choice] = []
        self._title = title
        self._asked = dict(overrides)

    def asked(self, role: str) -> str | None:
        """What the user settled for a role that is yet to be decided, or None."""
        return self._asked.get(role)

    def imply(self, role: str, value: str) -> None:
        """What the user settled for another role settles this one too, unless it was settled itself."""
        self._asked.setdefault(role, value)

    def settle(self, role: str, value: str, reason: str, rules: str, *others: Other) -> str:
        """Decides a role that has one of a few values.

        Args:
            role: which.
            value: what it gets if nobody asks for another.
            reason: why, in a sentence.
            rules: ids, as in Other.
            others: the alternatives, with what speaks against each.

        Returns:
            The value that it got.

        Raises:
            PlanError: the user asked for what is not known, or what this device, format or exporter cannot do.
        """
        asked = self._asked.pop(role, None)
        if asked is None or asked == value:
            found = reason if asked is None else f"{ASKED}; {reason}"
            return self._add(role, value, found, rules, *others)
        other = next((o for o in others if o.value == asked), None)
        if other is None:
            possible = [value, *(o.value for o in others if o.possible)]
            raise PlanError(f"{role} has no value of this name", got=asked, wanted=", ".join(possible))
        if not other.possible:
            raise self.refusal(role, other)
        usual = Other(value, f"what it would be: {reason}", rules)
        rest = [o for o in others if o is not other]
        return self._add(role, asked, f"{ASKED}, although {other.why}", other.rules, usual, *rest)

    def number(
        self, role: str, value: int, reason: str, rules: str, *others: Other, judged: Callable[[int], Other | None]
    ) -> int:
        """Decides a role that is a whole number. `judged` says what speaks against one that is asked for, if anything.

        Raises:
            PlanError: it is no whole number above 0, or one that `judged` finds impossible.
        """
        asked = self._asked.pop(role, None)
        if asked is None:
            self._add(role, str(value), reason, rules, *others)
            return value
        if not (asked.isascii() and asked.isdecimal() and int(asked) > 0):
            raise PlanError(f"{role} is a whole number", got=asked, wanted=f"such as {value}")
        against = judged(int(asked))
        if against is not None and not against.possible:
            raise self.refusal(role, against)
        because, on = (f"{ASKED}, although {against.why}", against.rules) if against else (ASKED, rules)
        if int(asked) == value:
            because = f"{ASKED}; {reason}"
        usual = [] if int(asked) == value else [Other(str(value), f"what it would be: {reason}", rules)]
        self._add(role, str(int(asked)), because, on, *usual, *(o for o in others if o.value != asked))
        return int(asked)

    def follow(self, role: str, value: str, reason: str, rules: str, leader: str, *others: Other) -> str:
        """Records a role that follows from another, `leader`, and cannot be settled by itself."""
        asked = self._asked.pop(role, None)
        if asked not in (None, value):
            told = next((o for o in others if o.value == asked), None)
            why = f"{told.why}; " if told else ""
            raise self.refusal(role, never(str(asked), f"{why}it follows from {leader}", told.rules if told else rules))
        return self._add(role, value, reason if asked is None else f"{ASKED}; {reason}", rules, *others)

    def refusal(self, role: str, other: Other) -> PlanError:
        """The error for an alternative that is impossible, with the rule that says so."""
        first = rule(other.rules.split(", ")[0])
        return PlanError(
            f"{role} = {other.value} is not for {self._title}: {other.why}",
            got=f"{role} = {other.value}",
            wanted=f"rule {first.id}: {first.statement}",
            hint=first.advice,
        )

    def finish(self) -> tuple[Choice, ...]:
        """All choices.

        Raises:
            PlanError: the user settled a role that this plan does not have.
        """
        if self._asked:
            known = ", ".join(choice.role for choice in self.choices)
            raise PlanError(
                f"the plan for {self._title} has no such role", got=", ".join(self._asked), wanted=known,
                hint="`satchel plan` lists roles and values",
            )  # fmt: skip
        return tuple(self.choices)

    def _add(self, role: str, value: str, reason: str, rules: str, *others: Other) -> str:
        rejected = tuple(Rejection(o.value, o.why, o.rules) for o in others if o.value != value)
        self.choices.append(Choice(role, value, reason, rules, rejected))
        return value
