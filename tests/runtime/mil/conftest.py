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
