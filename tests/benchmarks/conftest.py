"""Makes the benchmarks importable, and registers their slow tier."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


def pytest_configure(config: pytest.Config) -> None:
    """Registers the tier."""
    config.addinivalue_line(
        "markers",
        "real_size: exports of models at published sizes (hours, 50 GB of disk); pytest -m real_size",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without -m real_size, says what is not run."""
    if "real_size" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="NOT RUN: exports at real sizes (hours): pytest -m real_size")
    for item in items:
        if item.get_closest_marker("real_size"):
            item.add_marker(skip)
