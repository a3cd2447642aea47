"""Real emulation takes minutes, and an emulator that must be fetched: both are left out loudly."""

from __future__ import annotations

import pytest

from satchel.runtime.emulation.install import INSTALL, is_installed


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "emulate: runs aarch64 code under qemu (minutes); run by name only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = "emulate" in (config.getoption("-m") or "")
    if asked and is_installed():
        return
    reason = f"NOT RUN: no emulator is installed: {INSTALL}" if asked else "NOT RUN: emulated ARM: pytest -m emulate"
    for item in items:
        if item.get_closest_marker("emulate"):
            item.add_marker(pytest.mark.skip(reason=reason))
