"""States that forget, fail or are slow."""

from __future__ import annotations

from collections.abc import Iterator

from satchel.devices.rulebook import Rule
from satchel.runtime.coreml.checks.subject import Answer, Found, NotJudged, Subject, at, shown
from satchel.runtime.coreml.survey import FunctionSurvey, SurveyedOp

READ, WRITE, UPDATE = "read_state", "write_state", "slice_update"


def _state_of(op: SurveyedOp) -> str:
    """The state that a read or write names."""
    return next((v for v in op.arguments.get("input", ()) if isinstance(v, str)), "")


def _states(subject: Subject) -> dict[str, FunctionSurvey]:
    """Every state once -> the first function that has it."""
    found: dict[str, FunctionSurvey] = {}
    for function in subject.functions:
        for name in function.states:
            found.setdefault(name, function)
    return found


def _changes(function: FunctionSurvey, write: SurveyedOp) -> bool:
    """Whether a write stores something else than what was just read from the same state."""
    maker = function.maker(write, "data")
    return not (maker is not None and maker.type == READ and _state_of(maker) == _state_of(write))


def state_never_written(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """States that no function changes."""
    writes = [(f, op) for f, op in subject.each((WRITE,))]
    changed = {_state_of(op) for f, op in writes if _changes(f, op)}
    written = {_state_of(op) for _, op in writes}
    for name, function in _states(subject).items():
        if name not in changed:
            what = "is written back as it was read" if name in written else "is never written"
            yield Found(f"state {name} {what}", function.name, "state", name)


def state_never_read(subject: Subject, _rule: Rule) -> Iterator[Answer]:
    """States whose content nothing uses."""
    read = {_state_of(op) for _, op in subject.each((READ,))}
    for name, function in _states(subject).items():
        if name not in read:
            yield Found(f"state {name} is never read", function.name, "state", name)


def state_last_axis(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """States that are not laid out in multiples."""
    multiple = int(rule.number("multiple"))
    for name, function in _states(subject).items():
        shape = function.states[name][1]
        last = shape[-1] if shape else 1
        if last is None:
            yield NotJudged(f"the last axis of state {name} is not known before the program runs")
        elif last % multiple:
            yield Found(
                f"state {name} is {shown(shape)}: {last} is no multiple of {multiple}", function.name, "state", name
            )


def state_count(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Functions with many states."""
    for function in subject.functions:
        if len(function.states) > rule.number("most"):
            yield Found(f"{len(function.states)} states: {', '.join(function.states)}", function.name, "state")


def _updates(subject: Subject) -> Iterator[tuple[FunctionSurvey, SurveyedOp, list[tuple[int | None, int | None]]]]:
    """(function, slice_update of a state, (tokens written, tokens held) for each axis that is not written whole)."""
    for function, op in subject.each((UPDATE,)):
        held, written = function.argument_type(op, "x"), function.argument_type(op, "update")
        names = [v for v in op.arguments.get("x", ()) if isinstance(v, str)]
        of_a_state = any(maker.type == READ for n in names for maker in function.ancestors(n, 8))
        if of_a_state and held and written and len(held[1]) == len(written[1]):
            pairs = zip(written[1], held[1], strict=True)
            yield function, op, [(w, h) for w, h in pairs if w is None or w != h]


def state_update_length(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Updates that write many tokens at once."""
    for _, op, partial in _updates(subject):
        if any(written is None for written, _ in partial):
            yield NotJudged(f"how much slice_update '{op.name}' writes is not known before the program runs")
        longest = max((written or 0 for written, _ in partial), default=0)
        if longest > rule.number("most"):
            yield at(op, f"writes {longest} places of an axis at once, at most {rule.number('most')}")


def state_length(subject: Subject, rule: Rule) -> Iterator[Answer]:
    """Long states."""
    for _, op, partial in _updates(subject):
        longest = max((held or 0 for _, held in partial), default=0)
        if longest > rule.number("tokens"):
            yield at(op, f"a state of {longest} places, all read for each token")
