"""Fixtures that several test folders share."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# The same examples in every run: chance belongs into a session with --hypothesis-seed=N --hypothesis-profile=default.
# No deadline: a busy machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

DEMO_DEVICES = {"coreml": "iphone-15-pro", "onnx": "pixel-9", "executorch": "raspberry-pi-5"}


@pytest.fixture(scope="session")
def smollm2_bundles(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, Path]:
    """The demo's three bundles of SmolLM2, by format, in the quickest way; exported once for all workers."""
    import satchel

    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "smollm2"
    with FileLock(f"{shared}.lock"):
        targets = {f: shared / f"SmolLM2-135M-Instruct-{d}.satchel" for f, d in DEMO_DEVICES.items()}
        if not all(t.exists() for t in targets.values()):
            satchel.export("smollm2", list(DEMO_DEVICES.values()), output=shared, overwrite=True, effort="low")
    return targets
