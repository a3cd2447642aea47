"""Where work on single matrices is carried out: in threads of this process, or on a cluster (cluster.py), by joblib."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from joblib import Parallel, delayed

from satchel.runtime.errors import UsageError

T = TypeVar("T")

THREADS, CLUSTERS = "threads", ("dask", "ray")


@dataclass(frozen=True)
class Workers:
    """Carries out calls of one function side by side.

    Attributes:
        jobs: calls at a time. Their arguments are in memory, and at most those of jobs - 1 that are next.
    """

    jobs: int = 2

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """The result for each tuple of arguments, in their order; arguments are made when their turn comes."""
        pool = Parallel(n_jobs=self.jobs, prefer="threads", pre_dispatch=self.jobs, batch_size=1, return_as="generator")
        with _shared_processors(self.jobs):
            yield from pool(delayed(function)(*call) for call in calls)


@contextmanager
def _shared_processors(jobs: int) -> Iterator[None]:
    """Gives each of so many threads its share of those that torch and BLAS compute with.

    Otherwise they wait for each other: two threads spent twice the time of two processors on int4. No byte of a
    matrix depends on it.
    """
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    share = max(1, before // jobs)
    torch.set_num_threads(share)  # of threads that start from now on
    try:
        with threadpool_limits(share, "blas"):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Place:
    """Where the work is to be done.

    Attributes:
        kind: "threads", "dask" or "ray".
        address: of a cluster; "" for the one that its own settings name.
    """

    kind: str = THREADS
    address: str = ""


def parse_place(text: str) -> Place:
    """A place from "threads", "dask", "dask=tcp://host:8786", "ray" or "ray=ray://host:10001".

    Raises:
        UsageError: it is none of these.
    """
    kind, given, address = text.partition("=")
    if kind not in (THREADS, *CLUSTERS) or (given and (kind == THREADS or not address)):
        raise UsageError("--parallel names no place to work", got=text, wanted="threads, dask[=ADDRESS], ray[=ADDRESS]")
    return Place(kind, address)


@contextmanager
def open_workers(place: Place, threads: int, limit: int | None = None) -> Iterator[Workers]:
    """Workers at a place, as long as the context lasts.

    Args:
        place: threads of this process, or a cluster that is running.
        threads: how many, in this process.
        limit: of the calls at a time on a cluster; None gives each of its processors one.

    Raises:
        MissingPackageError: the cluster's package is not installed.
        UsageError: no cluster answers there.
    """
    if place.kind == THREADS:
        yield Workers(threads)
        return
    from satchel.export.cluster import open_cluster

    with open_cluster(place, limit) as workers:
        yield workers
