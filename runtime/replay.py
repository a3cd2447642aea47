"""Replays a bundle's golden prompts through a backend by every route that an app takes, and compares with a golden set.

Routes:
    decode    every id of every sequence by a decode step, from an empty cache: every golden row;
    prefill   the prompt in one prefill, and again in two, each followed by FORCED decode steps, and the whole sequence
              in one: rows from the prompt's end on, the one where the halves meet, and the last. Wrong positions, masks
              or padding show here;
    greedy    the prompt by prefill, then whatever the backend itself thinks best, as an answer is generated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from satchel.runtime import metrics
from satchel.runtime.backends.base import Backend
from satchel.runtime.golden import Golden, GoldenPrompt, GoldenSet, SetName
from satchel.runtime.images import Prepared
from satchel.runtime.pictures import show
from satchel.runtime.sampling import greedy

FORCED = 8
"""Decode steps after a prefill: enough to see that the cache it left is the right one."""

KEPT = 4
"""Logits kept of each row, those of golden's best ids: by them two machines are compared with each other."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many steps are finished."""


@dataclass
class RowFigures:
    """Figures of each row that a route gave, against one golden set."""

    rows: list[np.ndarray] = field(default_factory=list)
    best: list[np.ndarray] = field(default_factory=list)
    margin: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    kl: list[np.ndarray] = field(default_factory=list)
    agrees: list[np.ndarray] = field(default_factory=list)
    gap: list[np.ndarray] = field(default_factory=list)
    difference: list[np.ndarray] = field(default_factory=list)

    def add(self, golden: GoldenSet, rows: np.ndarray, logits: np.ndarray) -> None:
        """Compares full logits [n, vocab] with the golden rows [n]."""
        ids, top = golden.top_ids[rows], golden.top_logits[rows]
        at_top = np.take_along_axis(logits, ids.astype(np.int64), -1)
        self.rows.append(rows)
        self.best.append(np.argmax(logits, -1))
        second, first = np.partition(logits, -2, -1)[:, -2:].T
        self.margin.append(first - second)
        self.logits.append(at_top[:, :KEPT])
        self.kl.append(metrics.kl_from_top(ids, top, golden.rest_logsumexp[rows], logits))
        self.agrees.append(self.best[-1] == ids[:, 0])
        self.gap.append(top[:, 0] - top[:, 1])
        self.difference.append(metrics.largest_difference(top, at_top))

    def figures(self, tie: float) -> dict[str, float | None]:
        """The figures that limits are about; `tie` is the gap below which another best id is a matter of rounding.

        A candidate's NaN or infinity makes the KL figures infinite, so that no limit passes it.
        """
        kl = np.nan_to_num(np.concatenate(self.kl), nan=np.inf, posinf=np.inf)
        agrees, ties = np.concatenate(self.agrees), metrics.near_ties(np.concatenate(self.gap), tie)
        summary = metrics.Summary.of(np.minimum(kl, 1e30))
        error = metrics.standard_error(kl, FORCED * 2) if np.isfinite(kl).all() else float("nan")
        difference = np.nan_to_num(np.concatenate(self.difference), nan=np.inf, posinf=np.inf)
        return {
            "kl_mean": summary.mean, "kl_p99": summary.p99, "kl_max": summary.largest,
            "kl_standard_error": error if np.isfinite(error) else None,
            "top1": float(agrees.mean()), "top1_or_tie": float((agrees | ties).mean()),
            "difference_max": float(min(difference.max(), 1e30)),
            "positions": float(len(kl)),
        }  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A greedy answer beside a golden one.

    Attributes:
        prompt: number of the prompt.
        agreed: ids before the first that differs.
        steps: ids compared.
        got, wanted: the first ids that differ; None where none does.
        gap: by how much the golden model preferred its id there.
        runner_up: whether `got` was the golden model's second choice.
        ids: the whole answer.
    """

    prompt: int
    agreed: int
    steps: int
    got: int | None = None
    wanted: int | None = None
    gap: float | None = None
    runner_up: bool = False
    ids: tuple[int, ...] = ()

    def is_near_tie(self, tie: float) -> bool:
        """Whether rounding explains the difference: the golden model itself hardly preferred its id."""
        return self.gap is not None and self.gap < tie

    def to_json(self, tie: float) -> dict[str, Any]:
        """As a JSON object."""
        value: dict[str, Any] = {"prompt": self.prompt, "agreed": self.agreed, "steps": self.steps}
        value["ids"] = list(self.ids)
        if self.got is not None:
            gap = float(f"{self.gap:.6g}")
            value |= {"got": self.got, "wanted": self.wanted, "gap": gap, "near_tie": self.is_near_tie(tie)}
            value["runner_up"] = self.runner_up
        return value


def greedy_figures(answers: Sequence[Answer], tie: float) -> dict[str, float | None]:
    """Figures of greedy answers: how much agrees, and in how many answers the first difference is no near tie."""
    diverged = [a.got is not None and not a.is_near_tie(tie) for a in answers]
    return {
        "greedy_agreement": float(np.mean([a.agreed / a.steps for a in answers])),
        "greedy_diverged": float(np.mean(diverged)),
        "prompts": float(len(answers)),
    }


@dataclass
class Replay:
    """What one backend said, against each golden set.

    Attributes:
        rows: set -> route ("decode" or "prefill") -> figures of its rows.
        answers: set -> greedy answers, one a prompt.
        seconds: what was timed -> seconds, and tokens of it.
        skipped: prompts that the context cannot hold.
    """

    rows: dict[SetName, dict[str, RowFigures]]
    answers: dict[SetName, list[Answer]]
    seconds: dict[str, float]
    tokens: dict[str, int]
    skipped: int = 0


def replay(
    backend: Backend, golden: Golden, context_length: int, progress: Progress, what: str,
    picture: Prepared | None = None,
) -> Replay:  # fmt: skip
    """Runs all prompts by all routes.

    Args:
        backend: loaded.
        golden: the bundle's.
        context_length: ids that the cache holds; longer sequences are cut, longer prompts skipped.
        progress: told after each prompt.
        what: name of the run, for progress.
        picture: that prompts of a model that sees show; None for others.
    """
    result = Replay(
        {name: {"decode": RowFigures(), "prefill": RowFigures()} for name in golden.sets},
        {name: [] for name in golden.sets},
        {"decode": 0.0, "prefill": 0.0},
        {"decode": 0, "prefill": 0},
    )
    for number, (prompt, rows) in enumerate(golden.rows()):
        if len(prompt.ids) > context_length:
            result.skipped += 1
        else:
            if picture is not None:
                show(backend, [picture] if prompt.picture else [])
            _replay_prompt(_Timed(backend, result), golden, number, _cut(prompt, context_length), rows.start, result)
        progress(what, number + 1, len(golden.prompts))
    return result


def _cut(prompt: GoldenPrompt, context_length: int) -> GoldenPrompt:
    """The prompt with as much of its continuation as the cache holds; the last id needs no place."""
    return replace(prompt, continuation=prompt.continuation[: context_length - len(prompt.ids) + 1])


def _replay_prompt(
    backend: _Timed, golden: Golden, number: int, prompt: GoldenPrompt, start: int, result: Replay
) -> None:
    for route, parts in (("decode", _decode(backend, prompt)), ("prefill", _prefill(backend, prompt))):
        offsets, logits = zip(*parts, strict=True)
        for name, values in golden.sets.items():
            result.rows[name][route].add(values, start + np.array(offsets), np.stack(logits))
    answer = _greedy(backend, prompt)
    for name, values in golden.sets.items():
        result.answers[name].append(_compare(number, answer, values))


def _decode(backend: _Timed, prompt: GoldenPrompt) -> Iterator[tuple[int, np.ndarray]]:
    """(row within the prompt, logits) of every id."""
    backend.reset()
    for offset, token in enumerate(prompt.sequence):
        yield offset, backend.step(token)


def _prefill(backend: _Timed, prompt: GoldenPrompt) -> Iterator[tuple[int, np.ndarray]]:
    """(row within the prompt, logits) after a whole prefill, after each of two halves, and after steps that follow."""
    last = len(prompt.ids) - 1
    for half in sorted({0, len(prompt.ids) // 2}):
        backend.reset()
        if half:
            yield half - 1, backend.prefill(prompt.ids[:half])
        yield last, backend.prefill(prompt.ids[half:])
        for i, token in enumerate(prompt.continuation[:-1][:FORCED]):
            yield last + 1 + i, backend.step(token)
    backend.reset()
    yield len(prompt.sequence) - 1, backend.prefill(prompt.sequence)


def _greedy(backend: _Timed, prompt: GoldenPrompt) -> list[int]:
    backend.reset()
    chosen = [greedy(backend.prefill(prompt.ids))]
    while len(chosen) < len(prompt.continuation):
        chosen.append(greedy(backend.step(chosen[-1])))
    return chosen


def _compare(number: int, answer: Sequence[int], golden: GoldenSet) -> Answer:
    wanted = golden.greedy_ids[number]
    for i, token in enumerate(answer):
        if token != wanted[i]:
            gap, second = float(golden.greedy_gap[number, i]), int(golden.greedy_runner_up[number, i])
            return Answer(number, i, len(answer), token, int(wanted[i]), gap, token == second, tuple(answer))
    return Answer(number, len(answer), len(answer), ids=tuple(answer))


class _Timed:
    """A backend with a stopwatch."""

    def __init__(self, backend: Backend, result: Replay) -> None:
        self._backend, self._result = backend, result
        self.reset = backend.reset

    def prefill(self, ids: Sequence[int]) -> np.ndarray:
        return self._measure("prefill", len(ids), lambda: self._backend.prefill(ids))

    def step(self, token: int) -> np.ndarray:
        return self._measure("decode", 1, lambda: self._backend.step(token))

    def _measure(self, what: str, tokens: int, call: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.perf_counter()
        logits = call()
        self._result.seconds[what] += time.perf_counter() - start
        self._result.tokens[what] += tokens
        return logits


def timings(result: Replay, load: float) -> Mapping[str, float | None]:
    """Seconds to load, and tokens a second by each route; a single run on a machine that may be busy."""
    rates = {k: result.tokens[k] / s if (s := result.seconds[k]) else None for k in result.tokens}
    return {"load_seconds": load} | {f"{key}_tokens_per_second": rate for key, rate in rates.items()}
