"""Where work on single matrices is carried out: in threads of this process, by joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from joblib import Parallel, delayed

T = TypeVar("T")


@dataclass(frozen=True)
class Workers:
    """Carries out calls of one function side by side.

    Attributes:
        jobs: calls at a time, whose arguments and results are all that is in memory.
    """

    jobs: int = 2

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """The result for each tuple of arguments, in their order; arguments are made when their turn comes."""
        pool = Parallel(n_jobs=self.jobs, prefer="threads", pre_dispatch=self.jobs, batch_size=1, return_as="generator")
        return iter(pool(delayed(function)(*call) for call in calls))
