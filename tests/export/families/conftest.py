"""The slow tier of the families: every case in every op set."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Registers the tier."""
    config.addinivalue_line(
        "markers", "families: every variant of every family in every op set (some minutes); pytest -m families"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without -m families, says what is not run."""
    if "families" in (config.getoption("-m") or ""):
        return
    skip = pytest.mark.skip(reason="NOT RUN: the other variants of this family in this op set: pytest -m families")
    for item in items:
        if item.get_closest_marker("families"):
            item.add_marker(skip)
