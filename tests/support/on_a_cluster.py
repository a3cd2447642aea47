"""Exports on a local cluster of two workers and in threads, and compares: on_a_cluster.py dask|ray MODEL OUT.

Prints the number of workers, "same" for each pair of equal bundles, and "refused" if workers of other versions are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from killed_exports import hashes, small_calibration

import satchel
from satchel.export import cluster
from satchel.export.parallel import Place
from satchel.runtime.errors import UsageError


@contextmanager
def two_workers(kind: str) -> Iterator[str]:
    """A local cluster; yields what --parallel takes."""
    if kind == "dask":
        import distributed

        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs="ERROR"
        ) as workers:
            yield f"dask={workers.scheduler_address}"
    else:
        import ray

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield "ray"
        ray.shutdown()


def main(kind: str, model: Path, out: Path) -> None:
    small_calibration()
    with two_workers(kind) as place:
        name, _, address = place.partition("=")
        with cluster.open_cluster(Place(name, address), None) as workers:
            print(workers.jobs, flush=True)
        for number, options in enumerate(({"weights": "palette"}, {"weights": "int4", "effort": "low"})):
            bundles = [
                satchel.export(
                    model, "pixel-9", context=64, output=out / f"{number}{where[:3]}", parallel=where, **options
                )
                for where in ("threads", place)
            ]
            one, other = (hashes(made[0].folder) for made in bundles)
            print("same" if one == other else "different", flush=True)
        cluster.tool_versions = lambda: {"satchel": "0"}
        try:
            satchel.export(model, "pixel-9", context=64, output=out / "refused", parallel=place)
        except UsageError as error:
            print("refused" if "other packages" in str(error) else error, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
