"""Work on single matrices by the processors of a Dask or Ray cluster that is running already.

Its machines need Satchel and the same versions of the packages that matter, which each call checks. What travels is a
matrix with its statistics one way, and its codes the other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed, parallel_config

from satchel.export.parallel import Place, Workers
from satchel.export.tools import tool_versions
from satchel.runtime.errors import MissingPackageError, UsageError

T = TypeVar("T")

PATIENCE = 10
"""Seconds until a cluster is given up that does not answer."""


@dataclass(frozen=True)
class Cluster(Workers):
    """Workers on other machines.

    Attributes:
        pool: a joblib.Parallel that reaches them.
        ordered: whether it gives results one by one, and takes calls as they become free; Ray's takes them as a list.
    """

    pool: Any = None
    ordered: bool = True

    def map(self, function: Callable[..., T], calls: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """As Workers has it."""
        versions = tool_versions()
        tasks = (delayed(_run)(function, versions, tuple(map(_plain, call))) for call in calls)
        if self.ordered:
            yield from self.pool(tasks)
            return
        while some := list(islice(tasks, self.jobs)):
            yield from self.pool(some)


def _plain(value: Any) -> Any:
    """An argument without the file that it may be a view of."""
    return np.array(value) if isinstance(value, np.ndarray) else value


def _run(function: Callable[..., T], versions: dict[str, str], arguments: tuple[Any, ...]) -> T:
    """What a worker does."""
    found = tool_versions()
    if found != versions:
        raise UsageError(
            "a worker of the cluster has other packages", got=found, wanted=versions,
            hint="install the same versions there, or leave out --parallel",
        )  # fmt: skip
    return function(*arguments)


@contextmanager
def open_cluster(place: Place, limit: int | None) -> Iterator[Cluster]:
    """Workers of a cluster, as long as the context lasts; arguments and errors as parallel.open_workers has them."""
    connect = {"dask": _dask, "ray": _ray}[place.kind]
    with connect(place.address) as (processors, backend):
        jobs, ordered = min(processors, limit or processors), place.kind == "dask"
        more = {"return_as": "generator", "pre_dispatch": jobs} if ordered else {}
        with parallel_config(**backend), Parallel(n_jobs=jobs, batch_size=1, **more) as pool:
            yield Cluster(jobs, pool, ordered)


Connection = tuple[int, dict[str, Any]]  # processors, arguments of joblib.parallel_config


@contextmanager
def _dask(address: str) -> Iterator[Connection]:
    try:
        import dask
        import distributed  # noqa: F401  # which _dask_client needs
    except ImportError:
        raise _missing("dask", "distributed") from None
    client: Any = None if address else _current_client()
    ours = client is None
    if ours:
        address = address or dask.config.get("scheduler-address", None) or ""
        client = _dask_client(address)
    try:
        processors = sum(client.ncores().values())
        if not processors:
            raise UsageError(
                "the Dask cluster has no workers", got=address or None, hint="start some: dask worker ADDRESS"
            )
        # Matrices are sent as they are, and Dask would warn of each.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "100GB"}):
            yield processors, {"backend": "dask", "client": client}
    finally:
        if ours:
            client.close()


def _current_client() -> Any:
    """The client that a program which calls us has opened, if any."""
    import distributed

    try:
        return distributed.get_client()
    except ValueError:
        return None


def _dask_client(address: str) -> Any:
    import distributed

    hint = "start one (dask scheduler, dask worker ADDRESS), and pass --parallel dask=tcp://HOST:8786"
    if not address:
        raise UsageError("no Dask cluster is named", wanted="an address, or DASK_SCHEDULER_ADDRESS", hint=hint)
    try:
        return distributed.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError("no Dask cluster answers there", got=f"{address}: {error}", hint=hint) from error


@contextmanager
def _ray(address: str) -> Iterator[Connection]:
    try:
        import ray  # type: ignore[import-not-found]
        from ray.util.joblib import register_ray  # type: ignore[import-not-found]
    except ImportError:
        raise _missing("ray", "ray") from None
    ours = not ray.is_initialized()
    if ours:
        address = address or os.environ.get("RAY_ADDRESS", "") or "auto"  # one on this machine
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            hint = "start one (ray start --head), and pass --parallel ray, or ray=ray://HOST:10001"
            raise UsageError("no Ray cluster answers there", got=f"{address}: {error}", hint=hint) from error
    try:
        register_ray()
        yield int(ray.cluster_resources().get("CPU", 1)), {"backend": "ray"}
    finally:
        if ours:
            ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError or ValueError where nobody listens, on which Ray itself would spend minutes."""
    if address not in ("auto", "local"):
        host, _, port = address.rpartition("://")[2].rpartition(":")
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _missing(kind: str, package: str) -> MissingPackageError:
    return MissingPackageError(
        f"--parallel {kind} needs a package", wanted=package, hint=f"pip install {package}, here and on the cluster"
    )
