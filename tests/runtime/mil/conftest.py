"""Packages that several tests of the interpreter run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def network_package(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, str], Path]:
    """(name of a network, "fp32" or "fp16") -> its saved package, converted once for all workers; not to be changed."""
    from networks.convert import package

    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "networks"
    folder.mkdir(exist_ok=True)
    return lambda name, precision: package(folder, name, precision)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the long tier, and says so, unless it is asked for by its marker."""
    if "fuzz" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="NOT RUN: 10,000 altered packages, some ten minutes: pytest -m fuzz")
    for item in items:
        if item.get_closest_marker("fuzz"):
            item.add_marker(skip)
