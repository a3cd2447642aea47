"""From what a user gives to a module's inputs, and from its outputs to an answer: the steps that a manifest names.

`task.inputs` of a manifest has, for each kind of thing that a user gives ("text", "image", "audio"), an object whose
"step" is a key of PREPARE; `task.answer` is an object whose "step" is a key of ANSWERS. Everything else in these
objects is data of the step, which its module says. To add one: a module here, and a line in a table.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime.errors import BundleError, UsageError
from satchel.runtime.strict_json import parse

if TYPE_CHECKING:
    from satchel.runtime.module.manifest import TaskEntry
    from satchel.runtime.module.session import ModuleSession

PREPARE = {
    "tokens": "satchel.runtime.tasks.tokens",
    "pixels": "satchel.runtime.tasks.pixels",
    "waveform": "satchel.runtime.tasks.waveform",
    "log_mel": "satchel.runtime.tasks.log_mel",
}
"""Step -> module with `prepare(call, data)`, which adds to call.inputs and call.notes."""

ANSWERS = {
    "embedding": "satchel.runtime.tasks.embedding",
    "labels": "satchel.runtime.tasks.labels",
    "token_labels": "satchel.runtime.tasks.token_labels",
    "masked_tokens": "satchel.runtime.tasks.masked_tokens",
    "span": "satchel.runtime.tasks.span",
    "ctc": "satchel.runtime.tasks.ctc",
    "transcript": "satchel.runtime.tasks.transcript",
    "boxes": "satchel.runtime.tasks.boxes",
    "segments": "satchel.runtime.tasks.segments",
    "depth": "satchel.runtime.tasks.depth",
    "zero_shot": "satchel.runtime.tasks.zero_shot",
}
"""Step -> module with `answer(call, data)`, which returns a JSON value (arrays as arrays)."""

ALSO = {"text_pair": "text"}
"""What may be given beside something else, whose step takes both."""
SETTINGS = ("threshold", "top", "template", "timestamps", "language", "translate")
"""Data of steps that a caller may give instead of what the bundle says."""


@dataclass
class Call:
    """One question to a module.

    Attributes:
        session: loaded.
        given: by the user, by kind.
        inputs: of all parts, by name, made by the steps of PREPARE.
        notes: what these leave for the answer, such as where in the text each token is.
    """

    session: ModuleSession
    given: Mapping[str, Any]
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """What the part "model" says."""
        return self.run("model")

    def run(self, part: str) -> dict[str, np.ndarray]:
        """What a part says to those of the inputs that it has, row by row where it takes one at a time."""
        specs = self.session.parts[part].inputs if part in self.session.parts else ()
        inputs = {spec.name: self.inputs[spec.name] for spec in specs if spec.name in self.inputs}
        count = len(next(iter(inputs.values()), ()))
        if count <= 1 or any(spec.shape[0] != 1 for spec in specs):
            return self.session.run_part(part, inputs)
        rows = [{name: values[i : i + 1] for name, values in inputs.items()} for i in range(count)]
        found = [self.session.run_part(part, row) for row in rows]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def answer(session: ModuleSession, given: Mapping[str, Any]) -> Any:
    """See ModuleSession.answer."""
    task = session.bundle.manifest.module.task
    if task is None:
        raise UsageError("the module has no task", wanted="session.run(name=array, ...)")
    kinds = {ALSO.get(kind, kind) for kind in given if kind not in SETTINGS}
    if kinds != set(task.inputs):
        raise UsageError(f"what {task.name} is given", got=sorted(given), wanted=sorted(task.inputs))
    settings = _settings(task, given)
    call = Call(session, given)
    for data in task.inputs.values():
        _step(PREPARE, data).prepare(call, _with(data, settings))
    return _step(ANSWERS, task.answer).answer(call, _with(task.answer, settings))


def _settings(task: TaskEntry, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller gives of SETTINGS; raises UsageError for one that the task has not, or of another kind."""
    found = {name: given[name] for name in SETTINGS if name in given}
    own = {name: data[name] for data in (*task.inputs.values(), task.answer) for name in SETTINGS if name in data}
    for name, value in found.items():
        if name not in own:
            raise UsageError(f"{task.name} has no {name}", got=value, wanted=sorted(own) or "no settings")
        number = isinstance(own[name], float) and isinstance(value, int | float) and not isinstance(value, bool)
        if (not number and type(value) is not type(own[name])) or (isinstance(value, int | float) and value < 0):
            raise UsageError(f"{name} of {task.name}", got=value, wanted=f"such as {own[name]!r}")
    return found


def _with(data: Any, settings: Mapping[str, Any]) -> Any:
    return {**data, **{name: value for name, value in settings.items() if name in data}}


def _step(table: Mapping[str, str], data: Any) -> Any:
    name = data.get("step") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in table:
        raise BundleError("a step of the task is not known", got=name, wanted=sorted(table), hint="update Satchel")
    return importlib.import_module(table[name])


def check_labels(labels: Sequence[str], count: int) -> None:
    """Raises BundleError unless there are as many names as classes."""
    if len(labels) != count:
        raise BundleError("names of classes that are not the model's", got=len(labels), wanted=count)


def read_json(session: ModuleSession, path: str) -> Any:
    """A JSON file of the bundle."""
    text = session.bundle.text(path)
    if text is None:
        raise BundleError("a file of the task is missing", got=path)
    return parse(text.encode(), path, exact_integers=False)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64 over the last axis."""
    x = logits.astype(np.float64)
    x = np.exp(x - x.max(-1, keepdims=True))
    return np.asarray(x / x.sum(-1, keepdims=True))
