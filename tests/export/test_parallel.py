"""A cluster's processors make the same bytes as threads of this process."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_folder import tiny_folder

import satchel
from satchel.export.parallel import Place, Workers, open_workers, parse_place
from satchel.runtime.errors import MissingPackageError, UsageError

HERE = Path(__file__)


def test_places():
    assert parse_place("threads") == Place()
    assert parse_place("dask=tcp://host:8786") == Place("dask", "tcp://host:8786")
    assert parse_place("ray") == Place("ray")
    for bad in ("", "spark", "threads=2", "dask=", "DASK"):
        with pytest.raises(UsageError, match=r"threads, dask\[=ADDRESS\]"):
            parse_place(bad)


def test_a_missing_package_and_a_missing_cluster_are_named(tmp_path, monkeypatch):
    folder = tiny_folder(tmp_path / "tiny")
    for kind, package in (("dask", "distributed"), ("ray", "ray")):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, package, None)
            with pytest.raises(MissingPackageError, match=f"pip install {package}"):
                satchel.export(folder, "pixel-9", output=tmp_path / "out", parallel=kind)
    assert not (tmp_path / "out").exists()
    pytest.importorskip("distributed")
    monkeypatch.setattr("satchel.export.cluster.PATIENCE", 1)
    for place in ("dask=tcp://127.0.0.1:1", "dask=nonsense", "dask"):
        with pytest.raises(UsageError, match="Dask cluster"):
            satchel.export(folder, "pixel-9", output=tmp_path / "out", parallel=place)
    assert not (tmp_path / "out").exists()


def test_no_more_is_in_flight_than_there_are_workers():
    begun, ended, most = [], [], 0

    def calls():
        nonlocal most
        for number in range(20):
            begun.append(number)
            most = max(most, len(begun) - len(ended))
            yield (number,)

    def work(number):
        time.sleep(0.005)
        ended.append(number)
        return number**2

    with open_workers(Place(), 2) as workers:
        for number, found in enumerate(workers.map(work, calls())):
            assert found == number**2
    assert begun == list(range(20)) and sorted(ended) == begun
    assert 2 <= most <= 3, "joblib makes arguments for as many calls at once as there are workers"
    assert isinstance(workers, Workers) and workers.jobs == 2


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_cluster_of_two_makes_the_same_bytes(tmp_path, kind):
    """In a process of its own, whose helpers end with it."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[kind], reason=f"NOT RUN on a cluster of {kind}")
    folder = tiny_folder(tmp_path / "tiny")
    command = [sys.executable, str(HERE.parents[1] / "support" / "on_a_cluster.py"), kind, str(folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.split() == ["2", "same", "same", "refused"], done.stdout


def test_arguments_are_shipped_without_their_files(tmp_path):
    from satchel.export.cluster import _plain

    np.save(tmp_path / "w.npy", np.arange(1000.0))
    mapped = np.load(tmp_path / "w.npy", mmap_mode="r")
    shipped = _plain(mapped[10:20])
    assert type(shipped) is np.ndarray and shipped.base is None and np.array_equal(shipped, mapped[10:20])
