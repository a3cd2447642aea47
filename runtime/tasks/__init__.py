"""From what a user gives to a module's inputs, and from its outputs to an answer: the steps that a manifest names.

`task.inputs` of a manifest has, for each kind of thing that a user gives ("text", "image", "audio"), an object whose
"step" is a key of PREPARE; `task.answer` is an object whose "step" is a key of ANSWERS. Everything else in these
objects is data of the step, which its module says. To add one: a module here, and a line in a table.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from satchel.runtime.errors import BundleError, UsageError
from satchel.runtime.strict_json import parse

if TYPE_CHECKING:
    from satchel.runtime.module.session import ModuleSession

PREPARE = {
    "tokens": "satchel.runtime.tasks.tokens",
    "pixels": "satchel.runtime.tasks.pixels",
}
"""Step -> module with `prepare(call, data)`, which adds to call.inputs and call.notes."""

ANSWERS = {
    "embedding": "satchel.runtime.tasks.embedding",
    "labels": "satchel.runtime.tasks.labels",
    "token_labels": "satchel.runtime.tasks.token_labels",
    "masked_tokens": "satchel.runtime.tasks.masked_tokens",
    "span": "satchel.runtime.tasks.span",
}
"""Step -> module with `answer(call, data)`, which returns a JSON value (arrays as arrays)."""

ALSO = {"text_pair": "text"}
"""What may be given beside something else, whose step takes both."""


@dataclass
class Call:
    """One question to a module.

    Attributes:
        session: loaded.
        given: by the user, by kind.
        inputs: of the part "model", made by the steps of PREPARE.
        notes: what these leave for the answer, such as where in the text each token is.
    """

    session: ModuleSession
    given: Mapping[str, Any]
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """What the part "model" says, row by row where it takes one at a time; steps for modules of several parts call
        `session.run_part` instead."""
        count = len(next(iter(self.inputs.values())))
        if count == 1 or any(spec.shape[0] != 1 for spec in self.session.parts["model"].inputs):
            return self.session.run_part("model", self.inputs)
        rows = [{name: values[i : i + 1] for name, values in self.inputs.items()} for i in range(count)]
        found = [self.session.run_part("model", row) for row in rows]
        return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def answer(session: ModuleSession, given: Mapping[str, Any]) -> Any:
    """See ModuleSession.answer."""
    task = session.bundle.manifest.module.task
    if task is None:
        raise UsageError("the module has no task", wanted="session.run(name=array, ...)")
    missing, unknown = set(task.inputs) - set(given), {ALSO.get(k, k) for k in given} - set(task.inputs)
    if missing or unknown:
        raise UsageError(f"what {task.name} is given", got=sorted(given), wanted=sorted(task.inputs))
    call = Call(session, given)
    for data in task.inputs.values():
        _step(PREPARE, data).prepare(call, data)
    return _step(ANSWERS, task.answer).answer(call, task.answer)


def _step(table: Mapping[str, str], data: Any) -> Any:
    name = data.get("step") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in table:
        raise BundleError("a step of the task is not known", got=name, wanted=sorted(table), hint="update Satchel")
    return importlib.import_module(table[name])


def labels_of(data: Mapping[str, Any]) -> list[str]:
    """The names of classes, in order of their numbers."""
    found = data.get("labels")
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise BundleError("labels that are no list of names", got=found)
    return found


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
