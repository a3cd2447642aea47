"""Runs a compiled function one op at a time, so that whoever asks sees every value as it is made, and none is kept.

The function runs in a thread of its own that stands still while a value is being looked at. So two programs can be
walked side by side, each with loops and branches of its own, and an array that is updated in place is seen before that.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from satchel.runtime.mil.interpreter import State, Watch, run
from satchel.runtime.mil.steps import Executable, Step


@dataclass(frozen=True)
class Visit:
    """A step that has just run. Its arrays may be overwritten as the walk goes on.

    Attributes:
        step: what ran.
        operands: the values of its inputs, constants included.
        results: what it gave.
    """

    step: Step
    operands: Sequence[Any]
    results: Sequence[Any]

    @property
    def key(self) -> str:
        """What it is known by, see key_of."""
        return key_of(self.step)


def key_of(step: Step) -> str:
    """What a step is known by: the name of its first result; its own name where the program says none."""
    return step.specs[0].name if step.specs else step.name


class _Stopped(BaseException):
    """Ends a walk that nobody looks at any more; no handler of errors catches it."""


class _Run:
    """A run in a thread, one step at a time.

    Attributes:
        news: a Visit for each step, then the outputs in a tuple, or the exception that ended the run.
    """

    def __init__(self, executable: Executable, arguments: Mapping[str, Any]) -> None:
        self.news: SimpleQueue[Visit | tuple[dict[str, Any]] | BaseException] = SimpleQueue()
        self._going = threading.Semaphore(0)
        self._stopped = False
        self._thread = threading.Thread(target=self._work, args=(executable, arguments), daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Lets it run the next step."""
        self._going.release()

    def stop(self) -> None:
        """Ends it, wherever it is."""
        self._stopped = True
        self._going.release()
        self._thread.join()

    def _work(self, executable: Executable, arguments: Mapping[str, Any]) -> None:
        try:
            self._wait()
            self.news.put((run(executable, **arguments, observe=self._observe),))
        except BaseException as error:  # handed to whoever walks
            self.news.put(error)

    def _observe(self, step: Step, operands: Sequence[Any], results: Sequence[Any]) -> None:
        self.news.put(Visit(step, operands, results))
        self._wait()

    def _wait(self) -> None:
        self._going.acquire()
        if self._stopped:
            raise _Stopped


def walk(
    executable: Executable,
    inputs: Mapping[str, Any],
    state: State | None = None,
    watch: Watch | None = None,
    seed: int | None = None,
) -> Generator[Visit, None, dict[str, Any]]:
    """Runs a function; gives each step as it has run, those in blocks before the step around them, each time they run.

    Args:
        executable: the compiled function.
        inputs: name -> array, every input.
        state: where the function has states; updated when the walk has come to its end.
        watch: told of overflow, in fp16.
        seed: of random ops.

    Returns:
        What the function returns.

    Raises:
        UsageError, FormatError: as `interpreter.run` does.
    """
    arguments = {"inputs": inputs, "state": state, "watch": watch, "seed": seed}
    running = _Run(executable, arguments)
    try:
        while True:
            running.go_on()
            news = running.news.get()
            if isinstance(news, BaseException):
                raise news
            if isinstance(news, tuple):
                return news[0]
            yield news
    finally:
        running.stop()
