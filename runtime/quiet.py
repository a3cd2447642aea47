"""Imports of packages that talk while they are imported, about kernels of other machines and their own deprecations."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Holds back Python's warnings and log records up to WARNING; errors still show."""
    kept = logging.root.manager.disable
    logging.disable(max(kept, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(kept)
